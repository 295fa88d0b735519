"""Request ids, headers that protect, the access log, and pages of other origins that an administrator names."""

import re
import time

import pytest
from tests.gateway.test_failures import assert_problem


def test_a_well_formed_request_id_is_kept_and_another_is_made(platform):
    kept = platform.admin.get("/v1/me", headers={"X-Request-Id": "notebook-7:cell.3"})
    assert kept.headers["x-request-id"] == "notebook-7:cell.3"
    for strange in ("a b", "x" * 65, "ü".encode(), '"><script>'):
        made = platform.admin.get("/v1/me", headers={"X-Request-Id": strange}).headers["x-request-id"]
        assert re.fullmatch(r"req_[0-9a-z]{26}", made)


def test_every_answer_carries_the_headers_that_protect(platform):
    for path in ("/healthz", "/v1/me", "/v1/nothing", "/login", "/openapi.json", "/metrics"):
        headers = platform.admin.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers
    assert platform.admin.get("/v1/me").headers["cache-control"] == "no-store"


def test_the_log_has_a_line_for_each_request_without_its_query(platform, caplog):
    caplog.set_level("INFO")
    platform.admin.get("/v1/images?cursor=secret-looking", headers={"X-Request-Id": "of-the-test"})
    platform.client().get("/login?link=lnk_secret")

    def requests():
        return [r.msg for r in caplog.records if isinstance(r.msg, dict) and r.msg.get("event") == "request"]

    until = time.monotonic() + 10  # the line is written after the answer went out
    while len(requests()) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    lines = requests()
    assert [(line["path"], line["status"]) for line in lines] == [("/v1/images", 422), ("/login", 200)]
    assert lines[0]["user_id"] == platform.admin_user.id
    assert "secret" not in str(lines)


class TestWithANamedOrigin:
    @pytest.fixture
    def gateway_settings(self, gateway_settings):
        return gateway_settings.model_copy(update={"cors_origins": ("https://lab.example",)})

    def preflight(self, platform, origin):
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "if-match",
        }
        return platform.client().options("/v1/projects", headers=headers)

    def test_its_pages_may_ask_and_others_may_not(self, platform):
        allowed = self.preflight(platform, "https://lab.example")
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://lab.example"
        refused = self.preflight(platform, "https://evil.example")
        assert_problem(refused, 403, "FORBIDDEN")
        assert "access-control-allow-origin" not in refused.headers

    def test_its_pages_can_read_failures_too(self, platform):
        answer = platform.admin.get("/v1/nothing", headers={"Origin": "https://lab.example"})
        assert_problem(answer, 404, "NOT_FOUND")
        assert answer.headers["access-control-allow-origin"] == "https://lab.example"
        assert "ETag" in answer.headers["access-control-expose-headers"]
