"""Reading the metrics endpoints: a real server, sums, quantiles."""

import socket
import threading
from collections.abc import Iterator, Mapping

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from onerec.metrics import Labels, Samples, read_metrics, scrape


@pytest.fixture
def port() -> Iterator[int]:
    registry = CollectorRegistry()
    requests = Counter("requests", "r", ["status"], registry=registry)
    requests.labels("answered").inc(7)
    requests.labels("refused").inc(2)
    latency = Histogram("latency_seconds", "l", buckets=(1, 2, 4), registry=registry)
    for value in (0.5, 1.5, 1.5, 3.0):
        latency.observe(value)
    server, thread = start_http_server(0, "127.0.0.1", registry=registry)
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_samples_of_a_real_endpoint_are_summed_by_labels(port: int) -> None:
    samples = scrape({"worker": port})
    assert samples.get("requests_total") == 9
    assert samples.get("requests_total", status="answered", job="worker") == 7
    assert samples.get("requests_total", job="trainer") == 0
    assert samples.by("requests_total", "status") == {"answered": 7, "refused": 2}


def test_quantiles_are_interpolated_within_the_bucket(port: int) -> None:
    samples = scrape({"worker": port})
    assert samples.quantile("latency_seconds", 0.5) == pytest.approx(1.5)
    assert samples.quantile("latency_seconds", 0.25) == pytest.approx(1.0)
    assert Samples().quantile("latency_seconds", 0.5) is None


def test_a_service_that_does_not_answer_has_no_samples() -> None:
    assert read_metrics(1) == {}


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.0 200 OK\r\n\r\na{b=", b"HTTP/1.0 200 OK\r\n\r\n\xff"]
)
def test_another_program_on_the_port_has_no_samples(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert read_metrics(server.getsockname()[1], timeout_s=60) == {}
        thread.join(60)


def test_what_came_between_two_looks() -> None:
    bounds: Mapping[Labels, float] = {(("le", "1.0"),): 3.0, (("le", "+Inf"),): 4.0}
    earlier = Samples({"wait_seconds_bucket": bounds, "wait_seconds_count": {(): 4.0}, "wait_seconds_sum": {(): 9.0}})
    later = Samples(
        {
            "wait_seconds_bucket": {(("le", "1.0"),): 5.0, (("le", "+Inf"),): 6.0},
            "wait_seconds_count": {(): 6.0},
            "wait_seconds_sum": {(): 10.0},
        }
    )
    between = later.since(earlier)
    assert between.mean("wait_seconds") == 0.5
    assert between.quantile("wait_seconds", 0.5) == 0.5
    assert later.since(later).mean("wait_seconds") is None
