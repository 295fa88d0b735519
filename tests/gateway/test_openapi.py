"""The committed description is the true one, and nothing that it allows or forbids makes us fail."""

import contextlib
import json
import re

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from requests import RequestException
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from tests.gateway.pictures import encoded, part

from fulcrum.gateway.errors import MEDIA_TYPE
from fulcrum.gateway.openapi import FILE, document

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]


def committed():
    return json.loads(FILE.read_text(encoding="utf-8"))


def operations():
    for path, methods in committed()["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_the_committed_file_is_what_the_application_says():
    message = "run `python -m fulcrum.gateway.openapi` and commit the file"
    assert FILE.read_text(encoding="utf-8") == document(), message


def test_every_operation_says_what_it_does_and_how_it_fails():
    found = dict(operations())
    assert len(found) > 60
    assert [name for name, o in found.items() if not o.get("description")] == []
    for name, operation in found.items():
        for status in ("4XX", "5XX"):
            schema = operation["responses"][status]["content"][MEDIA_TYPE]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}, name
    ids = [o["operationId"] for o in found.values()]
    assert len(set(ids)) == len(ids)


def test_every_operation_of_the_api_says_how_to_prove_who_asks():
    open_ones = {"POST /v1/auth/login", "POST /v1/auth/links:redeem"}
    without = {name for name, o in operations() if " /v1/" in name and not o.get("security")}
    assert without == open_ones


def test_answers_are_described_by_their_fields():
    vague = [
        name
        for name, operation in operations()
        for status, answer in operation["responses"].items()
        if status.startswith("2")
        and answer.get("content", {}).get("application/json", {}).get("schema") == {}
    ]
    assert vague == []


def test_every_route_of_the_api_is_closed_to_strangers(platform):
    stranger = platform.client()
    open_ones = {"/v1/auth/login", "/v1/auth/links:redeem"}
    for name, _ in operations():
        method, path = name.split(" ")
        if path.startswith("/v1/") and path not in open_ones:
            answer = stranger.request(method, re.sub(r"\{\w+\}", "x", path))
            assert answer.status_code == 401, name
            assert answer.json()["reason"] == "UNAUTHENTICATED"


def test_nothing_that_a_fuzzer_sends_makes_us_fail(platform):
    victim = platform.new_user("Anna", "analyst")
    ids = {
        "user_id": victim.id,
        "project_id": platform.project.id,
        "image_id": platform.admin.post("/v1/images", files=part(encoded())).json()["id"],
        "token_id": "tok_" + "0" * 26,
    }
    headers = {"Authorization": platform.admin.headers["authorization"]}
    schema = schemathesis.openapi.from_dict(platform.app.openapi())
    # The resources around the engine have a fuzz of their own, in resources/.
    mine = (
        "/v1/auth",
        "/v1/me",
        "/v1/users",
        "/v1/tokens",
        "/v1/projects",
        "/v1/images",
        "/healthz",
        "/readyz",
    )
    found = [result.ok() for result in schema.get_all_operations()]
    fuzzed = [o for o in found if o.path.startswith(mine) and not re.search(r"\}:[a-z]+$|latents$", o.path)]
    assert len(fuzzed) > 20
    statuses = {}

    def ask(case, truly):
        if truly:
            case.path_parameters = {k: ids.get(k, v) for k, v in (case.path_parameters or {}).items()}
        # What a header of ours would spoil: the proof of who asks, and the wire itself.
        case.headers = {k: v for k, v in (case.headers or {}).items() if k.lower() == "if-match"}
        case.cookies = {}
        try:
            answer = case.call(base_url=platform.url, headers=headers, timeout=30)
        except (RequestException, UnicodeError, ValueError):
            return  # cannot be put on a wire
        if answer.status_code != 503:
            case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 400:
            assert answer.headers["content-type"][0] == MEDIA_TYPE
            assert answer.json()["reason"] != "INTERNAL_ERROR", answer.text
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1

    for operation in fuzzed:
        for mode, n_examples in ((GenerationMode.POSITIVE, 4), (GenerationMode.NEGATIVE, 4)):
            limits = settings(
                max_examples=n_examples,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            with contextlib.suppress(Unsatisfiable):  # nothing can be wrong where nothing is asked for
                limits(given(operation.as_strategy(generation_mode=mode), st.booleans())(ask))()
    assert statuses.get(200, 0) > 20
    assert sum(statuses.values()) > 120
