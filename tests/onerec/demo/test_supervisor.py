"""The supervisor with real processes: restarts, gives up with the log's end, and leaves nobody behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from onerec.demo.supervisor import HEALTHY_S, MAX_RESTARTS, Service, ServiceFailedError, Supervisor
from onerec.errors import DependencyMissingError

DEADLINE_S = 60.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {DEADLINE_S} s"
        time.sleep(0.01)


def module(folder: Path, name: str, body: str) -> dict[str, str]:
    """A service made for a test; returns the environment that lets `python -m name` find it."""
    (folder / f"{name}.py").write_text(body)
    return {"PYTHONPATH": str(folder)}


def pid(service: Service) -> int:
    assert service.process is not None
    return service.process.pid


def test_a_killed_service_is_started_again(tmp_path: Path) -> None:
    environment = module(tmp_path, "sleeper", "import time\ntime.sleep(60)\n")
    with Supervisor(tmp_path / "run", environment) as supervisor:
        service = supervisor.start("sleeper", "sleeper")
        first = pid(service)
        os.kill(first, signal.SIGKILL)

        def restarted() -> bool:
            supervisor.check()
            return service.running and pid(service) != first

        until(restarted, "the restart")
        assert service.restarts == 1
    assert not service.running


def test_kills_from_outside_are_not_held_against_a_service(tmp_path: Path) -> None:
    environment = module(tmp_path, "sleeper", "import time\ntime.sleep(60)\n")
    with Supervisor(tmp_path / "run", environment) as supervisor:
        service = supervisor.start("sleeper", "sleeper")
        for _ in range(MAX_RESTARTS + 1):
            supervisor.kill("sleeper")
            assert not service.running
            supervisor.check()
            assert service.running, "it is started again at once"
        assert service.restarts == 0


def test_old_crashes_of_a_service_that_has_run_well_since_are_forgotten(tmp_path: Path) -> None:
    environment = module(tmp_path, "sleeper", "import time\ntime.sleep(60)\n")
    with Supervisor(tmp_path / "run", environment) as supervisor:
        service = supervisor.start("sleeper", "sleeper")
        service.restarts = MAX_RESTARTS
        service.started_s -= HEALTHY_S
        os.kill(pid(service), signal.SIGKILL)
        until(lambda: not service.running, "its end")

        def restarted() -> bool:
            supervisor.check()
            return service.running

        until(restarted, "the restart")
        assert service.restarts == 1


def test_a_service_that_a_person_must_mend_is_not_restarted(tmp_path: Path) -> None:
    environment = module(tmp_path, "broken", "import sys\nprint('no topic')\nsys.exit(3)\n")
    with Supervisor(tmp_path / "run", environment) as supervisor:
        service = supervisor.start("broken", "broken")
        until(lambda: not service.running, "its end")
        with pytest.raises(DependencyMissingError, match="no topic"):
            supervisor.check()


def test_a_service_that_keeps_crashing_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    environment = module(tmp_path, "crasher", "raise RuntimeError('the reason')\n")
    with Supervisor(tmp_path / "run", environment) as supervisor:
        service = supervisor.start("crasher", "crasher")
        service.restarts = MAX_RESTARTS
        until(lambda: not service.running, "its end")
        with pytest.raises(ServiceFailedError, match="the reason"):
            supervisor.check()


def test_a_job_that_fails_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    environment = module(tmp_path, "job", "print('half way')\nraise SystemExit(7)\n")
    with Supervisor(tmp_path / "run", environment) as supervisor:
        with pytest.raises(ServiceFailedError, match=r"(?s)code 7.*half way"):
            supervisor.run("job", "job", timeout_s=DEADLINE_S)
        assert supervisor.services == {}


def test_a_service_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    with Supervisor(tmp_path / "run", module(tmp_path, "stubborn", stubborn)) as supervisor:
        service = supervisor.start("stubborn", "stubborn")
        until(lambda: service.log.read_text().startswith("up"), "its start")
        supervisor.stop(["stubborn"], timeout_s=0.2)
        assert not service.running
        assert supervisor.services == {}


def test_services_end_when_the_supervisor_itself_is_killed(tmp_path: Path) -> None:
    environment = module(tmp_path, "sleeper", "import time\ntime.sleep(60)\n")
    program = (
        "import sys, time, pathlib\n"
        "from onerec.demo.supervisor import Supervisor\n"
        f"s = Supervisor(pathlib.Path({str(tmp_path / 'run')!r}), {{}})\n"
        "print(s.start('sleeper', 'sleeper').process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    path = os.pathsep.join([environment["PYTHONPATH"], str(Path(__file__).parents[3])])
    with subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie", "the child's end")
