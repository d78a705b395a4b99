"""Compose, Prometheus, Grafana and the reference settings must agree with the code they deploy."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from inference.weights_metrics import weights_metrics
from onerec.cli.up import SERVICES
from onerec.settings import load_settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose"
METRIC_MODULES = (
    "onerec.service",
    "onerec.kafka.dead_letters",
    "stream.joiner.metrics",
    "stream.tokenizer.metrics",
    "trainer.metrics",
    "inference.worker.metrics",
    "inference.sampler.metrics",
)
PROMQL_WORDS = {"sum", "by", "le", "rate", "histogram_quantile"}


def stack() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((COMPOSE / "docker-compose.yml").read_text())
    return loaded


def dashboard_expressions() -> list[str]:
    dashboard = json.loads((COMPOSE / "grafana/dashboards/loop.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_reference_settings_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEREC_CONFIG", str(COMPOSE / "onerec.toml"))
    assert load_settings().kafka.bootstrap_servers == "kafka:9092"


def test_every_service_runs_the_command_that_onerec_up_runs() -> None:
    services = stack()["services"]
    assert {name: tuple(services[name]["command"]) for name in SERVICES} == SERVICES


@pytest.mark.parametrize("name", [name for name, body in stack()["services"].items() if "command" in body])
def test_every_command_exists(name: str) -> None:
    command = stack()["services"][name]["command"]
    words = [word for word in command[:3] if not word.startswith("-") and "," not in word]
    done = subprocess.run(
        [sys.executable, "-m", *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_long_running_service_restarts_and_has_a_health_check() -> None:
    dockerfile = (COMPOSE / "Dockerfile").read_text()
    assert "HEALTHCHECK" in dockerfile
    for name in (*SERVICES, "kafka", "prometheus", "grafana"):
        body = stack()["services"][name]
        assert body["restart"] == "on-failure", name
        assert name in SERVICES or "test" in body["healthcheck"], name


def test_environment_overrides_name_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stack()["services"]["worker"]["environment"].items():
        if name.startswith("ONEREC_") and name != "ONEREC_CONFIG":
            default = re.fullmatch(r"\$\{\w+:-(.*)\}", value)
            assert default is not None, value
            monkeypatch.setenv(name, default.group(1))
    monkeypatch.delenv("ONEREC_CONFIG", raising=False)
    load_settings()


def test_prometheus_scrapes_every_service_on_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEREC_CONFIG", str(COMPOSE / "onerec.toml"))
    port = load_settings().metrics.port
    scraped = yaml.safe_load((COMPOSE / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in scraped for config in job["static_configs"] for target in config["targets"]}
    assert targets == {f"{name}:{port}" for name in SERVICES}
    assert f"EXPOSE {port}" in (COMPOSE / "Dockerfile").read_text()


def test_the_dashboard_asks_for_metrics_that_the_services_have() -> None:
    for module in METRIC_MODULES:
        importlib.import_module(module)
    weights_metrics("worker")
    known = {name for collector in list(REGISTRY._collector_to_names.values()) for name in collector}
    asked = {
        word
        for expression in dashboard_expressions()
        for word in re.findall(r"[a-z_]+", re.sub(r"by \([^)]*\)|\[[^\]]*\]", "", expression))
        if word not in PROMQL_WORDS
    }
    assert asked
    assert asked <= known, f"the dashboard asks for metrics that no service has: {sorted(asked - known)}"


def test_the_image_is_the_only_one_and_copies_every_package() -> None:
    dockerfile = (COMPOSE / "Dockerfile").read_text()
    for package in ("schemas", "onerec", "stream", "trainer", "inference", "evaluation", "data"):
        assert f"COPY {package} {package}" in dockerfile
