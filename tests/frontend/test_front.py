"""The document of every page: Streamlit's, which knows where its server is."""

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.testclient import TestClient

from fulcrum_ui import front


@pytest.fixture
def client():
    # As Streamlit does: what it compresses must not change what the next one gets.
    app = Starlette(
        routes=front.routes(("debug",)), middleware=[Middleware(GZipMiddleware, minimum_size=100)]
    )
    with TestClient(app) as found:
        yield found


@pytest.mark.parametrize("path", ["/", "/debug", "/debug?image=img_1"])
def test_each_page_is_the_same_document_and_tells_where_the_server_is(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"
    head, _, body = answer.text.partition("<head>")
    assert body.startswith("<script>window.__streamlit={BACKEND_BASE_URL:")
    assert "<title>Fulcrum</title>" in body
    assert "<!DOCTYPE html>" in head


def test_whoever_takes_it_compressed_leaves_it_whole_for_the_next(client):
    for encoding in ("gzip", "identity", "gzip", "identity"):
        answer = client.get("/debug", headers={"Accept-Encoding": encoding})
        assert answer.headers.get("content-encoding", "identity") == encoding
        assert answer.text == front.document()


def test_a_head_has_no_body_and_other_paths_are_left_to_streamlit(client):
    assert client.head("/debug").content == b""
    assert client.get("/static/js/index.js").status_code == 404


def test_another_streamlit_is_found_out_at_the_start(monkeypatch, tmp_path):
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "index.html").write_text("<html></html>", "utf-8")
    monkeypatch.setattr(front.streamlit, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(RuntimeError, match="no single <head>"):
        front.document()
