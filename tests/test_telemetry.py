import io
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fulcrum import telemetry
from fulcrum.domain.errors import InvalidSettings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def lines():
    """Configures logging into a buffer; the answer reads what was logged. The process is left as it was."""
    root, stream = logging.getLogger(), io.StringIO()
    level, shown = root.level, warnings.showwarning
    telemetry.configure_logging("gateway", "info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for handler in [h for h in root.handlers if isinstance(h, telemetry._JsonLines)]:
        root.removeHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(False)
    warnings.showwarning = shown


def test_a_line_says_when_where_and_what(lines):
    telemetry.logger("fulcrum.x").info("model loaded", model_name="ViT-B-32", n_parameters=3)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "service": "gateway",
        "logger": "fulcrum.x",
        "event": "model loaded",
        "model_name": "ViT-B-32",
        "n_parameters": 3,
    }


def test_records_of_libraries_become_the_same_lines(lines):
    logging.getLogger("uvicorn.error").warning("port %d in use", 8080, extra={"port": 8080})
    (line,) = lines()
    assert (line["event"], line["port"], line["level"]) == ("port 8080 in use", 8080, "warning")


def test_a_traceback_is_part_of_one_line(lines):
    try:
        raise ValueError("inside")
    except ValueError:
        telemetry.logger("x").exception("failed")
        logging.getLogger("library").exception("failed too")
    ours, theirs = lines()
    assert "ValueError: inside" in ours["exception"]
    assert "ValueError: inside" in theirs["exception"]


def test_the_request_id_stands_in_every_line_of_the_request(lines):
    token = telemetry.request_id.set("req_1")
    try:
        logging.getLogger("library").info("inside")
    finally:
        telemetry.request_id.reset(token)
    telemetry.logger("x").info("outside")
    inside, outside = lines()
    assert inside["request_id"] == "req_1"
    assert "request_id" not in outside


def test_what_is_named_like_a_secret_is_never_written(lines):
    telemetry.logger("x").info("asked", api_token="fct_1", Authorization="Bearer 7", password="p", n_tokens=5)
    (line,) = lines()
    assert (line["api_token"], line["Authorization"], line["password"]) == ("[hidden]",) * 3
    assert line["n_tokens"] == 5


def test_the_level_is_respected_and_an_unknown_one_refused(lines):
    telemetry.logger("x").debug("no")
    assert lines() == []
    with pytest.raises(InvalidSettings, match=r"LOUD.*DEBUG, INFO"):
        telemetry.configure_logging("gateway", "LOUD")


def test_configuring_twice_writes_each_line_once(lines):
    stream = io.StringIO()
    telemetry.configure_logging("other", "INFO", stream)
    telemetry.logger("x").info("once")
    assert lines() == []
    assert [json.loads(x)["service"] for x in stream.getvalue().splitlines()] == ["other"]


def test_an_unconfigured_program_keeps_its_standard_output_clean():
    code = "from fulcrum.telemetry import logger; logger('x').info('a'); logger('x').warning('b', n=1)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "services")},
    )
    assert done.stdout == ""
    assert "'b'" in done.stderr
    assert "'a'" not in done.stderr


def test_a_trace_goes_on_in_the_next_service(lines):
    from opentelemetry.sdk.trace import TracerProvider

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with telemetry.incoming_trace({"traceparent": parent, "accept": "*/*"}):
        assert telemetry.outgoing_trace() == {"traceparent": parent}
        telemetry.logger("x").info("inside")
        provider = TracerProvider(shutdown_on_exit=False)
        with provider.get_tracer("test").start_as_current_span("encode") as span:
            assert f"{span.get_span_context().trace_id:032x}" == parent[3:35]
    assert lines()[0]["trace_id"] == parent[3:35]
    assert telemetry.outgoing_trace() == {}


def test_without_a_collector_spans_cost_nothing():
    telemetry.configure_tracing("gateway", None)
    with telemetry.tracer("x").start_as_current_span("encode") as span:
        assert not span.is_recording()


def test_spans_reach_a_collector():
    # In a process of its own: a provider can be set once per process.
    code = """
import http.server, threading, gzip
from fulcrum import telemetry
seen = []
class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        seen.append((self.path, gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body))
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()
telemetry.configure_tracing("inference", f"http://127.0.0.1:{server.server_port}")
with telemetry.tracer("x").start_as_current_span("prefix of one image"):
    assert telemetry.outgoing_trace()["traceparent"].startswith("00-")
from opentelemetry import trace
trace.get_tracer_provider().shutdown()
(path, body), = seen
assert path == "/v1/traces" and b"prefix of one image" in body and b"inference" in body
print("arrived")
"""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="no OTLP exporter installed")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT / "services"), "NO_PROXY": "*"},
    )
    assert done.stdout == "arrived\n", done.stderr
