"""Logging in leads to the frontend, to the view where one came from, and never anywhere else."""

import pytest
from starlette.requests import Request

from fulcrum.gateway.links import after_login, frontend_url
from fulcrum.gateway.settings import Settings

HOME = "http://127.0.0.1:8501"


def request(host="127.0.0.1:8080"):
    scope = {"type": "http", "method": "GET", "path": "/login", "query_string": b"", "scheme": "http"}
    return Request({**scope, "server": ("127.0.0.1", 8080), "headers": [(b"host", host.encode())]})


@pytest.mark.parametrize("view", [HOME, f"{HOME}/", f"{HOME}/debug?image=img_1&edits=3%3A0"])
def test_one_comes_back_to_the_view(view):
    assert after_login(request(), view, Settings(frontend_url=HOME)) == view


@pytest.mark.parametrize(
    "view",
    [
        "",
        "https://evil.example/",
        "//evil.example",
        "http://127.0.0.1:8501.evil.example/",
        "http://127.0.0.1:8501@evil.example/",
        "javascript:alert(1)",
        "http://127.0.0.1:8502/debug",
        f"{HOME}/\r\nSet-Cookie: a=b",
        f"{HOME}\\@evil.example",
        "http://[",
    ],
)
def test_other_places_are_not_gone_to(view):
    assert after_login(request(), view, Settings(frontend_url=HOME)) == f"{HOME}/"


def test_without_a_frontend_one_stays():
    assert after_login(request(), f"{HOME}/debug", Settings()) == "/"


def test_the_frontend_is_on_the_host_that_the_browser_sees():
    own = Settings(frontend_url=HOME)
    assert frontend_url(request("lab.example:8080"), own) == "http://lab.example:8501"
    public = Settings(frontend_url="https://lab.example/ui/", public_url="https://lab.example")
    assert frontend_url(request("other.example"), public) == "https://lab.example/ui"
    assert after_login(request(), "https://lab.example/v1/x", public) == "https://lab.example/ui/"
