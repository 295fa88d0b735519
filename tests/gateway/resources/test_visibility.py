"""Who may do what: viewers read, analysts write, admins manage models; other projects do not exist."""

import itertools

import pytest
from tests.gateway.resources.conftest import TASK

from fulcrum.domain.identifiers import new_id

SUPPRESS = [{"kind": "scale", "latent": 1286, "gain": 0.0}]


@pytest.fixture
def full(lab):
    """A lab with one thing of each kind; its ids."""
    answer = lab.ask("steer", edits=SUPPRESS, n_controls=0)
    correction = lab.client.get(f"/v1/results/{answer['result_id']}").json()["request"]["correction"]
    lab.correction = correction
    label = lab.client.put(f"/v1/saes/{lab.sae['id']}/concepts/7", json={"label": "handle"})
    assert label.status_code == 200, label.text
    lab.ids = {
        "image": lab.image["id"],
        "model": lab.model["id"],
        "sae": lab.sae["id"],
        "result": answer["result_id"],
        "dataset": lab.post("/v1/datasets", 201, name="d")["id"],
        "session": lab.post("/v1/sessions", 201, title="s")["id"],
        "correction": lab.post("/v1/corrections", 201, name="c", correction=correction)["id"],
    }
    return lab


READS = [
    "/v1/models/{model}",
    "/v1/saes/{sae}",
    "/v1/saes/{sae}/concepts",
    "/v1/saes/{sae}/concepts?q=hand",
    "/v1/saes/{sae}/concepts/7",
    "/v1/datasets/{dataset}",
    "/v1/sessions/{session}",
    "/v1/sessions/{session}/entries",
    "/v1/corrections/{correction}",
    "/v1/corrections/{correction}:export",
    "/v1/corrections/{correction}/versions",
    "/v1/corrections/{correction}/versions/1",
    "/v1/results/{result}",
    "/v1/images/{image}/latents?sae_id={sae}",
]
LISTS = ["/v1/models", "/v1/saes", "/v1/datasets", "/v1/sessions", "/v1/corrections", "/v1/results"]


def question(full, **more):
    return {"sae_id": full.ids["sae"], "task": TASK, **more}


def writes(full):
    """(method, path, body, least role)"""
    ids = full.ids
    return [
        ("POST", "/v1/models", {"name": "m2", "model_name": "folder:demo/clip"}, "admin"),
        ("PATCH", f"/v1/models/{ids['model']}", {"name": "m3"}, "admin"),
        ("POST", f"/v1/models/{ids['model']}:warm", None, "analyst"),
        ("POST", "/v1/saes", {"name": "s2", "model_id": ids["model"], "source": "folder:demo/sae"}, "admin"),
        ("PATCH", f"/v1/saes/{ids['sae']}", {"name": "s3"}, "admin"),
        ("POST", f"/v1/saes/{ids['sae']}:warm", None, "analyst"),
        ("PUT", f"/v1/saes/{ids['sae']}/concepts/9", {"label": "rim"}, "analyst"),
        ("POST", "/v1/datasets", {"name": "d2"}, "analyst"),
        ("PATCH", f"/v1/datasets/{ids['dataset']}", {"name": "d3"}, "analyst"),
        ("POST", "/v1/sessions", {"title": "mine"}, "analyst"),
        ("POST", "/v1/corrections", {"name": "c2", "correction": full.correction}, "analyst"),
        ("PATCH", f"/v1/corrections/{ids['correction']}", {"name": "c3"}, "analyst"),
        (
            "POST",
            f"/v1/corrections/{ids['correction']}/versions",
            {"correction": {**full.correction, "drop_error": True}},
            "analyst",
        ),
        ("POST", f"/v1/images/{ids['image']}:explain", question(full, n_latents=1), "analyst"),
        ("POST", f"/v1/images/{ids['image']}:steer", question(full, edits=SUPPRESS, n_controls=0), "analyst"),
        ("POST", f"/v1/images/{ids['image']}:sweep", question(full, latents=[1], gains=[0.0]), "analyst"),
        (
            "POST",
            f"/v1/images/{ids['image']}:suggest",
            question(full, wanted="star", max_latents=1),
            "analyst",
        ),
        (
            "POST",
            "/v1/predictions",
            {"model_id": ids["model"], "image_ids": [ids["image"]], "task": TASK},
            "analyst",
        ),
        ("DELETE", f"/v1/corrections/{ids['correction']}", None, "analyst"),
        ("DELETE", f"/v1/datasets/{ids['dataset']}", None, "analyst"),
        ("DELETE", f"/v1/saes/{ids['sae']}", None, "admin"),
        ("DELETE", f"/v1/models/{ids['model']}", None, "admin"),
    ]


def send(client, method, path, body):
    headers = {"If-Match": "*"} if method in {"PATCH", "DELETE"} or path.endswith("/versions") else {}
    return client.request(method, path, json=body, headers=headers)


def test_a_viewer_reads_everything_and_writes_nothing(full):
    viewer = full.platform.as_user("vera", "viewer")
    for path in READS:
        answer = viewer.get(path.format(**full.ids))
        assert answer.status_code == 200, (path, answer.text)
    for path in LISTS:
        assert len(viewer.get(path).json()["items"]) >= 1, path
    for method, path, body, _ in writes(full):
        answer = send(viewer, method, path, body)
        assert (answer.status_code, answer.json()["reason"]) == (403, "FORBIDDEN"), (
            method,
            path,
            answer.text,
        )


def test_an_analyst_does_all_but_manage_models(full):
    analyst = full.platform.as_user("anna", "analyst")
    for method, path, body, role in writes(full):
        answer = send(analyst, method, path, body)
        if role == "admin":
            assert answer.status_code == 403, (method, path, answer.text)
        else:
            assert answer.status_code < 300, (method, path, answer.text)
            assert "event: error" not in answer.text, (method, path, answer.text)


def test_a_project_admin_manages_models(full):
    admin = full.platform.as_user("adam", "admin")
    done = {}
    for method, path, body, role in writes(full):
        if role == "admin" and method != "DELETE":
            done[method, path] = send(admin, method, path, body)
    assert {a.status_code for a in done.values()} <= {200, 201}, {k: a.text for k, a in done.items()}
    for sae in admin.get("/v1/saes").json()["items"]:
        assert send(admin, "DELETE", f"/v1/saes/{sae['id']}", None).status_code == 204
    assert send(admin, "DELETE", f"/v1/models/{full.ids['model']}", None).status_code == 204


def test_a_token_for_reading_writes_nothing_whatever_the_role(full):
    reader = full.platform.as_user("rita", "admin", scopes=("read",))
    assert reader.get(f"/v1/models/{full.ids['model']}").status_code == 200
    for method, path, body, _ in writes(full):
        assert send(reader, method, path, body).status_code == 403, (method, path)


def test_what_belongs_to_others_reads_as_if_it_did_not_exist(full):
    stranger = full.platform.as_user("steve")
    nothing = {k: new_id(v[:3]) for k, v in full.ids.items()}

    def same(one, other):
        told, expected = one.json(), other.json()
        assert one.status_code == other.status_code == 404, (one.text, other.text)
        for key in ("title", "reason", "detail", "type"):
            shown = told[key]
            for kind, own in full.ids.items():
                shown = shown.replace(own, nothing[kind])
            assert shown == expected[key]

    for path in READS:
        same(stranger.get(path.format(**full.ids)), stranger.get(path.format(**nothing)))
    for method, path, body, _ in writes(full):
        if path in {"/v1/models", "/v1/datasets", "/v1/sessions", "/v1/corrections"}:
            continue  # they make something new, in a project that the stranger does not have
        other = path
        content = body
        for kind, own in full.ids.items():
            other = other.replace(own, nothing[kind])
            content = _replaced(content, own, nothing[kind])
        same(send(stranger, method, path, body), send(stranger, method, other, content))
    for path in LISTS:
        answer = stranger.get(path, params={"project_id": full.platform.project.id})
        assert (answer.status_code, answer.json()["reason"]) == (404, "UNKNOWN_PROJECT"), path


def _replaced(content, own, other):
    if isinstance(content, dict):
        return {k: _replaced(v, own, other) for k, v in content.items()}
    if isinstance(content, list):
        return [_replaced(v, own, other) for v in content]
    return other if content == own else content


def test_a_question_stays_within_one_project(full):
    """Who is a member of two projects cannot mix them: the answer would show one in the other."""
    other = full.platform.new_project("Second")
    theirs = full.platform.as_user("both", "analyst")
    me = theirs.get("/v1/me").json()
    user_id = me.get("id") or me["user"]["id"]
    put = full.client.put(f"/v1/projects/{other.id}/members/{user_id}", json={"role": "analyst"})
    assert put.status_code in {200, 201, 204}, put.text
    copy = full.client.post(
        "/v1/images",
        files={"file": ("a.png", full.client.get(f"/v1/images/{full.ids['image']}/content").content)},
        data={"project_id": other.id},
    ).json()
    assert copy["project_id"] == other.id
    session = theirs.post("/v1/sessions", json={"title": "t", "project_id": other.id}).json()
    mixed = [
        (f"/v1/images/{copy['id']}:explain", question(full)),
        (f"/v1/images/{full.ids['image']}:explain", question(full, session_id=session["id"])),
        (f"/v1/images/{copy['id']}:sweep", question(full, latents=[1], gains=[0.0])),
        (
            "/v1/predictions",
            {"model_id": full.ids["model"], "image_ids": [full.ids["image"], copy["id"]], "task": TASK},
        ),
        (
            f"/v1/sessions/{session['id']}/entries",
            {"kind": "note", "text": "x", "image_id": full.ids["image"]},
        ),
        (
            f"/v1/sessions/{session['id']}/entries",
            {"kind": "note", "text": "x", "result_id": full.ids["result"]},
        ),
    ]
    for path, body in mixed:
        answer = theirs.post(path, json=body)
        assert (answer.status_code, answer.json()["reason"]) == (422, "INVALID_REQUEST"), (path, answer.text)
        assert "project" in answer.json()["detail"]
    assert theirs.get("/v1/results", params={"project_id": other.id}).json()["items"] == []


def test_lists_come_in_pages_that_meet(full):
    for i in range(5):
        full.post("/v1/sessions", 201, title=f"number {i}")
    seen, cursor = [], None
    for _ in itertools.count():
        page = full.client.get(
            "/v1/sessions", params={"limit": 2} | ({"cursor": cursor} if cursor else {})
        ).json()
        seen += [s["title"] for s in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["number 4", "number 3", "number 2", "number 1", "number 0", "s"]
    assert full.client.get("/v1/sessions", params={"cursor": "nonsense"}).status_code == 422
