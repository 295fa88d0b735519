"""Logs and traces, the same in every service: JSON lines on stderr, spans to an OpenTelemetry collector.

A log line is one object with `timestamp, level, service, logger, event`, the request id where there is one, and
`trace_id, span_id` inside a span. What is logged under the name of a secret is replaced before it is written. Figures
(Prometheus) live in the services that have them. Importing this configures nothing: a program that never calls
`configure_logging` gets the standard library's behaviour (warnings and worse on stderr).
"""

import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO, cast

import structlog
from opentelemetry import context as trace_context
from opentelemetry import trace
from opentelemetry.propagate import extract, inject
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.typing import Processor

from fulcrum.domain.errors import InvalidSettings, MissingDependency

request_id: ContextVar[str | None] = ContextVar("fulcrum_request_id", default=None)
"""Id of the request that is being answered; travels to other services and stands in every log line."""

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_SECRET_WORDS = ("password", "secret", "token", "authorization", "cookie", "api_key", "credential")
_NOT_SECRET = ("n_tokens", "max_tokens", "token_id")  # counts, and an id that may be known

Event = MutableMapping[str, Any]


def logger(name: str) -> BoundLogger:
    """A module's logger.

    `log = logger(__name__)`, then `log.info("model loaded", model_name="ViT-B-32")`.
    """
    processors: list[Processor] = [
        structlog.stdlib.filter_by_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        ProcessorFormatter.wrap_for_formatter,
    ]
    # Not structlog.get_logger: unconfigured, it prints to stdout, where --json has the word.
    wrapped = structlog.wrap_logger(
        logging.getLogger(name), processors=processors, wrapper_class=BoundLogger, context_class=dict
    )
    return cast(BoundLogger, wrapped)


def configure_logging(service: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """From now on this process logs JSON lines to `stream` (stderr), libraries' records and warnings included.

    Can be called again. Raises InvalidSettings for an unknown level.
    """
    if level.upper() not in LEVELS:
        raise InvalidSettings(f"log level {level!r} is not one of {', '.join(LEVELS)}")

    def add_service(_: Any, __: str, event: Event) -> Event:
        return {"service": service, **event}

    handler = _JsonLines(stream or sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
            processors=[
                add_service,
                _add_origin,
                ProcessorFormatter.remove_processors_meta,
                structlog.contextvars.merge_contextvars,
                _add_ids,
                _hide_secrets,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
            ],
            use_get_message=True,
        )
    )
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _JsonLines)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)


class _JsonLines(logging.StreamHandler[TextIO]):
    """A class of its own, so that configuring twice does not write every line twice."""


def _add_origin(_: Any, __: str, event: Event) -> Event:
    record: logging.LogRecord = event["_record"]
    event.pop("color_message", None)  # uvicorn's, for terminals
    # "Z" and not "+00:00": the same text in every log, so that files of several services sort together.
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    first = {
        "timestamp": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "service": event.pop("service"),
        "logger": record.name,
        "event": event.pop("event"),
    }
    return {**first, **event}


def _add_ids(_: Any, __: str, event: Event) -> Event:
    if (current := request_id.get()) is not None:
        event.setdefault("request_id", current)
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"], event["span_id"] = f"{span.trace_id:032x}", f"{span.span_id:016x}"
    return event


def _hide_secrets(_: Any, __: str, event: Event) -> Event:
    for key in event:
        if _is_secret(key):
            event[key] = "[hidden]"
    return event


@lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    lower = key.lower()
    return lower not in _NOT_SECRET and any(word in lower for word in _SECRET_WORDS)


def configure_tracing(service: str, otlp_endpoint: str | None) -> None:
    """Spans of this process go to the collector at `otlp_endpoint` (OTLP over HTTP, such as
    `http://127.0.0.1:4318`); None: they cost nothing and go nowhere. Once per process.

    Raises MissingDependency where the exporter is not installed.
    """
    if otlp_endpoint is None:
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise MissingDependency(
            f"traces to {otlp_endpoint} need the package 'opentelemetry-exporter-otlp-proto-http', "
            "which is not installed"
        ) from error
    exporter = OTLPSpanExporter(endpoint=otlp_endpoint.rstrip("/") + "/v1/traces")
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter))  # flushed at exit by the provider itself
    trace.set_tracer_provider(provider)


def tracer(name: str) -> trace.Tracer:
    """A module's tracer.

    `with tracer(__name__).start_as_current_span("prefix"): ...`.
    """
    return trace.get_tracer(name)


def outgoing_trace() -> dict[str, str]:
    """Headers (or gRPC metadata) that carry the current span to another service: `traceparent`, if there is one."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier


@contextmanager
def incoming_trace(headers: Mapping[str, str]) -> Iterator[None]:
    """Spans started inside are children of the caller's span named in `headers` (lower-case keys)."""
    token = trace_context.attach(extract(dict(headers)))
    try:
        yield
    finally:
        trace_context.detach(token)
