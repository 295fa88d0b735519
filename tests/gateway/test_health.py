"""Probes and figures."""

from fulcrum.domain.errors import ServiceUnavailable


def test_a_gateway_whose_parts_answer_is_alive_and_ready(platform):
    stranger = platform.client()
    assert stranger.get("/healthz").json() == {"status": "ok"}
    ready = stranger.get("/readyz")
    assert ready.status_code == 200, ready.text
    assert ready.json() == {"ready": True, "checks": {"store": "ok", "redis": "ok", "inference": "ok"}}


def test_a_gateway_without_inference_is_alive_but_says_that_it_is_not_ready_and_why(platform):
    platform.engine.down = ServiceUnavailable("inference is away", 1.0)
    stranger = platform.client()
    assert stranger.get("/healthz").status_code == 200
    answer = stranger.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["reason"] == "SERVICE_UNAVAILABLE"
    assert answer.json()["checks"]["store"] == "ok"
    assert "inference" in answer.json()["detail"]


def test_figures_count_requests_by_route_and_never_by_what_was_typed(platform):
    platform.admin.get("/v1/images/img_nonsense")
    platform.admin.get("/no/such/place")
    text = platform.client().get("/metrics").text
    assert 'fulcrum_gateway_requests_total{method="GET",route="/v1/images/{image_id}",status="404"}' in text
    assert 'fulcrum_gateway_failures_total{reason="UNKNOWN_IMAGE"}' in text
    assert "nonsense" not in text
    assert "/no/such/place" not in text
