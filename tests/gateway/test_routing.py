"""The table of routes finds what FastAPI finds when it asks one router after the other."""

import re

import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import Match, NoMatchFound, Route

from fulcrum.gateway.app import ROUTERS
from fulcrum.gateway.routing import RouteTable

TABLE = RouteTable(ROUTERS)
STRANGE = (
    "/v1", "/v1/", "/v1/nothing", "/v1/images/", "/v1/images/a/b/c/d", "/v1/images:nothing", "/v1/imagesx",
    "/v2/images", "/nothing", "", "/v1//images", "/v1/saes/a/concepts/", "/v1/datasets/a:b:c", "//", "/static/../login",
)  # fmt: skip


def scope(method, path):
    return {"type": "http", "method": method, "path": path, "headers": [], "root_path": ""}


def one_by_one(method, path):
    """The endpoint that FastAPI's order of routers gives, and whether the method is allowed there."""
    partial = (Match.NONE, None)
    for route in (route for router in ROUTERS for route in router.routes):
        match, _ = route.matches(scope(method, path))
        if match is Match.FULL:
            return match, route
        if match is Match.PARTIAL and partial[0] is Match.NONE:
            partial = match, route
    return partial


def in_table(method, path):
    match, child_scope = TABLE.matches(scope(method, path))
    return match, child_scope.get("route")


def test_every_path_leads_where_it_would_one_by_one():
    routes = [route for router in ROUTERS for route in router.routes]
    assert sorted(r.path for r in TABLE) == sorted(r.path for r in routes)
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"):
        for path in [*(r.path for r in routes), *STRANGE]:
            for filled in (
                re.sub(r"\{[^}]*\}", "x_1", path),
                re.sub(r"\{[^}]*\}", "a:b", path),
                path + ":nothing",
            ):
                assert in_table(method, filled) == one_by_one(method, filled), (method, filled)


def test_the_first_of_two_that_fit_answers():
    router = APIRouter(prefix="/v1/things")
    router.add_api_route("/{thing_id}:act", lambda: None, methods=["POST"], name="act")
    router.add_api_route("/{thing_id}", lambda: None, methods=["POST"], name="make")
    table = RouteTable([router])
    assert table.matches(scope("POST", "/v1/things/a:act"))[1]["route"].name == "act"
    assert table.matches(scope("POST", "/v1/things/a"))[1]["route"].name == "make"
    match, child_scope = table.matches(scope("GET", "/v1/things/a"))
    assert (match, child_scope["route"].name) == (Match.PARTIAL, "make")


def test_a_route_is_found_by_its_name():
    assert TABLE.url_path_for("predict_images") == "/v1/predictions"
    with pytest.raises(NoMatchFound):
        TABLE.url_path_for("nothing")


def test_a_route_whose_resource_is_anything_is_refused():
    router = APIRouter()
    router.add_api_route("/v1/{anything}", lambda: None)
    with pytest.raises(AssertionError, match="could be anything"):
        RouteTable([router])


def test_the_method_that_is_not_possible_names_one_that_is(platform):
    answer = platform.admin.delete("/v1/predictions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_the_described_routes_are_those_of_the_table(platform):
    assert isinstance(platform.app, FastAPI)
    described = {
        (method.upper(), path)
        for path, methods in platform.admin.get("/openapi.json").json()["paths"].items()
        for method in methods
    }
    served = {
        (m, r.path_format) for r in TABLE if isinstance(r, Route) and r.include_in_schema for m in r.methods
    }
    assert described == served
