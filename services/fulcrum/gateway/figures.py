"""What Prometheus reads: requests, their times, and what was refused."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

REQUESTS = Counter(
    "fulcrum_gateway_requests", "Requests answered.", ("method", "route", "status"), registry=REGISTRY
)
DURATION = Histogram(
    "fulcrum_gateway_request_duration_seconds",
    "From the first byte of a request to the last of its answer; a stream counts until it ends.",
    ("method", "route"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)
RUNNING = Gauge("fulcrum_gateway_requests_running", "Requests being answered.", registry=REGISTRY)
FAILURES = Counter(
    "fulcrum_gateway_failures", "Requests that failed, by the reason that the caller was told.", ("reason",),
    registry=REGISTRY,
)  # fmt: skip
