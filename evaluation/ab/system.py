"""The system of an A/B run: the demo's services with a second trainer, two more workers, and the cascade."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from evaluation.ab.protocol import CASCADE, FROZEN, ONEREC, TOPICS, Form
from evaluation.feed import Feed
from onerec.cli.demo import BROKER_VARIABLE
from onerec.demo.loop import Demo, Options, Progress, broker_of, configuration
from onerec.demo.supervisor import Supervisor
from onerec.demo.view import shown
from onerec.settings import Settings, load_settings
from schemas.reasons import Reason
from schemas.topics import DEAD_LETTERS

PLAIN = "plain"
DRIVE = "drive"
VISITS = "visits"
SEED_VERSION = 1
"""What a trainer publishes first."""
READ_S = 120.0
TRAINED_WITHIN_S = 3600.0
"""Two seeds and the cascade, on two cores; the full form takes ten minutes for them. Who ends meanwhile is noticed."""


class Trial(Demo):
    """One run with all arms at once."""

    def __init__(
        self,
        options: Options,
        settings: Settings,
        supervisor: Supervisor,
        progress: Progress,
        *,
        form: Form,
        seed: int,
    ) -> None:
        super().__init__(options, settings, supervisor, progress)
        self._form, self._seed = form, seed

    def _services(self) -> None:
        self.progress.enter("seeds of both trainers, and the cascade")
        plain = {
            "ONEREC_MODEL__NAME": PLAIN,
            "ONEREC_STORE__URI": str((self.options.directory / "store-plain").resolve()),
        }
        arguments = ("--form", self._form.name, "--seed", str(self._seed))
        self.supervisor.start("trainer", "trainer", "run")
        self.supervisor.start(f"trainer-{PLAIN}", "trainer", "run", ONEREC_TRAINER__PREFERENCE_LOSS="none", **plain)
        self.supervisor.start("joiner", "stream", "joiner")
        self.supervisor.start(CASCADE, "evaluation", "ab-cascade", *arguments)
        self._wait_ready("trainer", f"trainer-{PLAIN}", "joiner", CASCADE, within_s=TRAINED_WITHIN_S)
        self.supervisor.start("worker", "inference", "worker")
        answers = {"ONEREC_INFERENCE__WORKER__OUTPUT_TOPIC": TOPICS[ONEREC], "ONEREC_INFERENCE__WORKER__GROUP": PLAIN}
        self.supervisor.start(f"worker-{PLAIN}", "inference", "worker", **plain, **answers)
        answers = {"ONEREC_INFERENCE__WORKER__OUTPUT_TOPIC": TOPICS[FROZEN], "ONEREC_INFERENCE__WORKER__GROUP": FROZEN}
        pinned = {"ONEREC_INFERENCE__WORKER__PIN_VERSION": str(SEED_VERSION)}
        self.supervisor.start(f"worker-{FROZEN}", "inference", "worker", **plain, **answers, **pinned)
        self.supervisor.start("sampler", "inference", "sampler")
        self._wait_ready("worker", f"worker-{PLAIN}", f"worker-{FROZEN}", "sampler")

    def _live(self) -> None:
        self.progress.enter("live: warm-up, then simulated users of all arms")
        ports = self.supervisor.endpoints()
        followers = [f"--follower={name}={ports[name]}" for name in ("joiner", "trainer", f"trainer-{PLAIN}")]
        drive = self.supervisor.start(
            DRIVE,
            "evaluation",
            "ab-drive",
            *("--form", self._form.name, "--seed", str(self._seed), "--out", str(self._file(VISITS))),
            *followers,
        )
        while drive.running:
            self._tick(except_for=DRIVE)
        self.supervisor.finished(drive)

    def _report(self) -> dict[str, Any]:
        samples = self.progress.samples
        found = {
            job: {
                "answered": samples.get("inference_worker_requests_total", job=job, status="answered"),
                "swaps": samples.get("inference_worker_swaps_total", job=job),
                "version": samples.get("inference_worker_version", job=job),
            }
            for job in ("worker", f"worker-{PLAIN}", f"worker-{FROZEN}")
        }
        versions = {job: samples.get("trainer_version", job=job) for job in ("trainer", f"trainer-{PLAIN}")}
        return {
            "workers": found,
            "trainer_versions": versions,
            "pairs": {
                "made": samples.get("inference_sampler_pairs_total"),
                "learned": samples.get("trainer_pairs_total", job="trainer"),
            },
            "dead_letters": self._dead_letters(),
            "peak_rss_mb": round(self.usage.peak_bytes / 1e6),
        }

    def _dead_letters(self) -> dict[str, int]:
        """By reader and reason, read from the topic."""
        feed, found = Feed(self.settings.kafka, (DEAD_LETTERS,)), Counter[str]()
        try:
            feed.read_to_end(
                lambda batch: found.update(
                    f"{one.record.service}: {one.record.reason}"
                    for one in batch
                    if one.record.reason != Reason.REPLAYED
                ),
                READ_S,
            )
        finally:
            feed.close()
        return dict(found)


def run_trial(form: Form, seed: int, directory: Path) -> dict[str, Any]:
    """Start everything, run, stop everything; what the services said. The visits lie in `directory`/visits.npz."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    options = Options(directory, 0, 1.0, "small", os.environ.get(BROKER_VARIABLE), simulate=True)
    config, progress = directory / "onerec.toml", Progress()
    with broker_of(options) as (servers, broker):
        config.write_text(_configuration(options, servers, form, seed))
        environment = {"ONEREC_CONFIG": str(config.resolve()), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        view = shown(progress, Console(stderr=True, force_terminal=False))
        with Supervisor(directory, environment) as supervisor, view:
            found = Trial(options, load_settings(config), supervisor, progress, form=form, seed=seed).run()
    return found | {"broker": broker}


def _configuration(options: Options, servers: str, form: Form, seed: int) -> str:
    """The demo's, with seeds of equal samples and the form's weights and share of pairs."""
    text = configuration(replace(options, frequency_power=form.frequency_power), servers)
    text = text.replace(f"budget_s = {options.seed_s}\nthreads = 2\n", f"samples = {form.seed_samples}\nthreads = 1\n")
    own = f"random_seed = {seed}\npreference_weight = {form.preference_weight}\n"
    text = text.replace("[trainer]\n", f"[trainer]\n{own}")
    return f"{text}\n[inference.sampler]\nshare = {form.pair_share}\ncandidates = {form.candidates}\n"
