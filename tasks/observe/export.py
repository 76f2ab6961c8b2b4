"""Measures runs, and exports their metrics: scraped while a run works, pushed or written to a file at its end.

The settings are those of the process, from its environment. Guarantee: nothing here ends a run; metrics that cannot be
exported are a warning.
"""

import fcntl
import os
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Metric, pushadd_to_gateway, start_http_server, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tasks.observe.logs import get_logger
from tasks.observe.metrics import PREFIX, RunMetrics, category_of, current_metrics, use_metrics
from tasks.run_context import Stop
from tasks.settings.proxies import bypass_proxies

PORT: Final = "KAFKA_SORT_METRICS_PORT"
GATEWAY: Final = "KAFKA_SORT_PUSHGATEWAY"
FILE: Final = "KAFKA_SORT_METRICS_FILE"
# A gateway that hangs must not delay a run that was asked to stop.
_TIMEOUT_SECONDS = 3.0
_GOES_ON = frozenset({"counter", "histogram"})

T = TypeVar("T")
# The name and labels of a sample.
Key = tuple[str, tuple[tuple[str, str], ...]]


@contextmanager
def export_metrics(job: str) -> Iterator[RunMetrics]:
    """Measure the block: PORT serves its metrics meanwhile, GATEWAY and FILE get them at its end, whatever that is."""
    metrics = RunMetrics(job)
    try:
        with use_metrics(metrics), _served(metrics.registry):
            yield metrics
    finally:
        _attempt(GATEWAY, lambda gateway: push(metrics, gateway))
        _attempt(FILE, lambda path: write(metrics, Path(path)))


@contextmanager
def measure_run(stop: Stop) -> Iterator[None]:
    """Count the block as one run, by its outcome; the error that ended it is one line of the log."""
    try:
        yield
    except BaseException as error:
        cause = stop.cause_of(error)
        current_metrics().count_error(cause)
        get_logger().error("run not completed", category=category_of(cause), error=str(cause) or type(cause).__name__)
        raise
    current_metrics().count_success()


def push(metrics: RunMetrics, gateway: str) -> None:
    """Add to the job's group in the gateway. What this run does not set stays: a failed run keeps the last success."""
    address = gateway if "://" in gateway else f"http://{gateway}"
    bypass_proxies(address)
    with urllib.request.urlopen(f"{address.rstrip('/')}/metrics", timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310  # the user set the address
        before = read_samples(answer.read().decode(), metrics.job)
    pushadd_to_gateway(gateway, metrics.job, continued(metrics.registry, before), timeout=_TIMEOUT_SECONDS)


def write(metrics: RunMetrics, path: Path) -> None:
    """Write the file for the node exporter's textfile collector, by rename; other jobs' metrics in it stay."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Two jobs may end at once: each must see what the other wrote.
        fcntl.flock(folder, fcntl.LOCK_EX)
        before = read_samples(path.read_text()) if path.exists() else {}
        write_to_textfile(str(path), continued(metrics.registry, before))
    finally:
        os.close(folder)


def read_samples(text: str, job: str | None = None) -> dict[Key, float]:
    """Read our samples from an exposition, for one job or for all."""
    return {
        _key(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        if family.name.startswith(PREFIX)
        for sample in family.samples
        if job in {None, sample.labels.get("job")}
    }


def continued(registry: Collector, before: Mapping[Key, float]) -> CollectorRegistry:
    """Return the registry's metrics, added to those that were exported before.

    A batch run is a new process, so its counters begin at zero: exported as they are, Prometheus would see the same
    value run after run, and no increase.
    """
    result = CollectorRegistry()
    result.register(_Continued(registry, before))
    return result


class _Continued(Collector):
    def __init__(self, registry: Collector, before: Mapping[Key, float]) -> None:
        self._registry = registry
        self._before = before

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            samples = {key: value for key, value in self._before.items() if _belongs(key[0], metric)}
            for sample in metric.samples:
                key = _key(sample.name, sample.labels)
                earlier = samples.get(key, 0.0) if metric.type in _GOES_ON else 0.0
                samples[key] = earlier + sample.value
            merged = Metric(metric.name, metric.documentation, metric.type)
            for (name, labels), value in samples.items():
                merged.add_sample(name, dict(labels), value)
            yield merged


def _belongs(sample: str, metric: Metric) -> bool:
    return sample.removeprefix(metric.name) in {"", "_total", "_bucket", "_sum", "_count"}


def _key(name: str, labels: Mapping[str, str]) -> Key:
    """Return the same key for a sample of ours and for the gateway's form of it: `le="1"`, and an empty instance."""
    given = {label: value for label, value in labels.items() if value}
    if "le" in given:
        given["le"] = str(float(given["le"])).replace("inf", "+Inf")
    return name, tuple(sorted(given.items()))


@contextmanager
def _served(registry: CollectorRegistry) -> Iterator[None]:
    started = _attempt(PORT, lambda address: _serve(registry, address))
    try:
        yield
    finally:
        if started is not None:
            started()


def _serve(registry: CollectorRegistry, address: str) -> Callable[[], None]:
    """Serve at `PORT` of the loopback address, or at `HOST:PORT`; return the function that ends it."""
    host, _, port = address.rpartition(":")
    server, thread = start_http_server(int(port), host or "127.0.0.1", registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


def _attempt(setting: str, action: Callable[[str], T]) -> T | None:
    """Do it with the setting's value, if it has one; a failure is a warning."""
    value = os.environ.get(setting)
    if not value:
        return None
    try:
        return action(value)
    except Exception as error:  # noqa: BLE001  # no error of metrics may end a run
        # The value may hold a password, and so may the message of anything but an OSError.
        reason = str(error) if isinstance(error, OSError) else type(error).__name__
        get_logger().warning("metrics could not be exported", setting=setting, error=reason)
        return None
