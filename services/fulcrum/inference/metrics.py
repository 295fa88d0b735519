"""Prometheus figures of one service, in a registry of their own."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fulcrum.inference.calls import Call

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts answers; the engine's own figures are read when Prometheus asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "fulcrum_inference_calls",
            "Calls answered, by the reason of their error or OK.",
            ("method", "reason"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "fulcrum_inference_call_seconds",
            "Time to answer.",
            ("method",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._queue = Histogram(
            "fulcrum_inference_queue_seconds",
            "Part of that time spent waiting for the device.",
            ("method",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._rows = Histogram(
            "fulcrum_inference_batch_rows",
            "Rows of the largest forward that a call rode in.",
            buckets=_ROWS,
            registry=self.registry,
        )

    def answered(self, call: Call, reason: str, took_s: float) -> None:
        """One call more."""
        self._calls.labels(call.method, reason).inc()
        self._seconds.labels(call.method).observe(took_s)
        if call.batch_size:
            self._queue.labels(call.method).observe(call.queue_ms / 1000)
            self._rows.observe(call.batch_size)

    def watch(
        self,
        gauges: dict[str, tuple[str, Callable[[], float]]],
        counters: dict[str, tuple[str, Callable[[], float]]],
    ) -> None:
        """Figures that are read at every scrape: name (without `fulcrum_inference_`) to help text and reader."""
        self.registry.register(_Reader(gauges, counters))


class _Reader(Collector):
    def __init__(
        self,
        gauges: dict[str, tuple[str, Callable[[], float]]],
        counters: dict[str, tuple[str, Callable[[], float]]],
    ) -> None:
        self._gauges, self._counters = gauges, counters

    def collect(self) -> Iterable[Metric]:
        """Called by the registry."""
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(f"fulcrum_inference_{name}", text, value=read())
        for name, (text, read) in self._counters.items():
            yield CounterMetricFamily(f"fulcrum_inference_{name}", text, value=read())
