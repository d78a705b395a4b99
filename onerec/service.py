"""What every service does around its loop: logging, metrics endpoint, signals, readiness, exit codes."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from prometheus_client import Gauge, start_http_server

from onerec.errors import ExitCode, OneRecError
from onerec.heap import give_back_freed_memory
from onerec.secrets import mask_tracebacks, masking_handler
from onerec.settings import Settings

LOG = logging.getLogger(__name__)
LOG_VARIABLE = "ONEREC_LOG"
READY = Gauge("onerec_ready", "1 once the service does its work: state restored, model loaded.", ["service"])
UP_SINCE = Gauge("onerec_start_time_seconds", "Unix time at which the service started.", ["service"])


class Stop:
    """Asks a service's loop to end, and lets the loop say that it is ready. Safe to use from signal handlers."""

    def __init__(self, service: str, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """`on_ready` is called when the loop is ready for the first time."""
        self._on_ready: Callable[[], None] | None = on_ready
        self._event = threading.Event()
        self._ready = READY.labels(service)
        self._ready.set(0)

    def is_set(self) -> bool:
        """Whether the loop should end."""
        return self._event.is_set()

    def set(self) -> None:
        """Ask the loop to end."""
        self._event.set()

    def wait(self, timeout_s: float) -> bool:
        """Sleep until asked to end, at most `timeout_s`; returns whether asked."""
        return self._event.wait(timeout_s)

    def ready(self) -> None:
        """The service does its work from here on; health checks turn green."""
        on_ready, self._on_ready = self._on_ready, None
        if on_ready is not None:
            on_ready()
        self._ready.set(1)


def leave_what_is_there() -> None:
    """Never look for garbage again among what has been loaded so far, libraries and first state.

    With torch these are 200,000 objects: a full collection takes a tenth of a second, in the middle of a request or of
    a step. Who has switched the collector off has a pace of its own (stream/joiner/garbage.py).
    """
    if gc.isenabled():
        gc.collect()
        gc.freeze()


def configure_logging(service: str) -> None:
    """One line a message on stderr, with the service's name; ONEREC_LOG sets the level (default INFO).

    Secrets of the settings are masked in it, whoever writes them.
    """
    handler = masking_handler(f"%(asctime)s {service} %(levelname)s %(name)s: %(message)s")
    logging.basicConfig(level=os.environ.get(LOG_VARIABLE, "INFO").upper(), handlers=[handler], force=True)
    mask_tracebacks()
    for chatty in ("aiokafka", "faust", "mode", "urllib3", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _on_signals(stop: Stop) -> None:
    def handle(number: int, _frame: FrameType | None) -> None:
        LOG.info("%s: stopping", signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def run_service(name: str, settings: Settings, body: Callable[[Stop], None], *, metrics: bool = True) -> int:
    """Run `body` until it returns; the exit code for `sys.exit`.

    `body` polls its `Stop` and calls `stop.ready()` once it works. An OneRecError ends the service with its
    sentence and exit code; any other exception with a traceback and exit code 1, so that a supervisor
    restarts it. `metrics=False` is for commands that end by themselves.
    """
    configure_logging(name)
    stop = Stop(name, on_ready=leave_what_is_there)
    _on_signals(stop)
    try:
        if metrics:
            serve_metrics(name, settings)
            give_back_freed_memory()  # what serves metrics runs for long
        body(stop)
    except OneRecError as error:
        LOG.error("%s", error)
        return int(error.exit_code)
    except Exception:
        LOG.exception("%s failed; its state is as of its last commit, start it again", name)
        return 1
    LOG.info("%s ended", name)
    return int(ExitCode.DONE)


def serve_metrics(name: str, settings: Settings) -> None:
    """Serve /metrics on the configured host and port; the port in use is logged (0 takes any free one)."""
    UP_SINCE.labels(name).set_to_current_time()
    server, _ = start_http_server(settings.metrics.port, settings.metrics.host)
    LOG.info("metrics on http://%s:%d/metrics", settings.metrics.host, server.server_port)
