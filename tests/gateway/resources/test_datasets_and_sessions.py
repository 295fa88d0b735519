"""Records of data sets, and sessions: a person's log that nobody changes."""

import pytest

from fulcrum.gateway.datasets.schemas import DatasetRecord
from fulcrum.gateway.sessions.schemas import SessionEntry, SessionRecord


@pytest.fixture
def client(platform):
    return platform.admin


def test_a_data_set_begins_empty(client):
    answer = client.post("/v1/datasets", json={"name": "shops", "class_names": ["cup", "fish"]})
    record = answer.json()
    DatasetRecord.model_validate(record)
    assert (record["state"], record["n_images"], record["digest"]) == ("empty", 0, None)
    assert client.get(f"/v1/datasets/{record['id']}").json() == record
    assert client.post("/v1/datasets", json={"name": "shops"}).json()["reason"] == "ALREADY_EXISTS"
    doubled = client.post("/v1/datasets", json={"name": "x", "class_names": ["cup", "cup"]})
    assert doubled.json()["reason"] == "INVALID_PROMPT"
    assert client.post("/v1/datasets", json={"name": "x", "state": "ready"}).status_code == 422


def test_images_are_imported_by_a_job_from_folders_that_were_allowed(client):
    dataset = client.post("/v1/datasets", json={"name": "shops"}).json()["id"]
    asked = client.post(f"/v1/datasets/{dataset}:import", json={"source": "folder:lab/shops", "seed": 1})
    assert asked.status_code == 202
    job = client.get(f"/v1/jobs/{asked.json()['id']}").json()["job"]
    assert (job["kind"], job["state"]) == ("import_dataset", "queued")
    assert job["spec"]["source"] == "folder:lab/shops"
    for source in ("/etc/passwd", "http://there/x", "folder:"):
        assert client.post(f"/v1/datasets/{dataset}:import", json={"source": source}).status_code == 422
    assert client.post("/v1/datasets/dat_none:import", json={"source": "folder:a/b"}).status_code == 404


def test_an_import_may_name_a_model_of_the_project_to_embed_its_images(platform):
    client = platform.admin
    dataset = client.post("/v1/datasets", json={"name": "shops"}).json()["id"]
    body = {"name": "m", "model_name": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}
    model = client.post("/v1/models", json=body).json()["id"]
    asked = client.post(f"/v1/datasets/{dataset}:import", json={"source": "folder:lab/a", "model_id": model})
    assert (asked.status_code, asked.json()["spec"]["model_id"]) == (202, model)
    assert asked.json()["queue"] == "gpu"
    project = client.post("/v1/projects", json={"name": "Elsewhere"}).json()["id"]
    foreign = client.post("/v1/models", json=body | {"project_id": project}).json()["id"]
    for other in ("mdl_none", foreign):
        for refused in (
            client.post(f"/v1/datasets/{dataset}:import", json={"source": "folder:lab/a", "model_id": other}),
            client.post(f"/v1/datasets/{dataset}:upload", params={"model_id": other}, content=b"PK..."),
        ):
            assert (refused.status_code, refused.json()["reason"]) == (404, "UNKNOWN_MODEL")
    uploaded = client.post(f"/v1/datasets/{dataset}:upload", params={"model_id": model}, content=b"PK...")
    assert (uploaded.status_code, uploaded.json()["spec"]["model_id"]) == (202, model)
    assert len(client.get("/v1/jobs").json()["items"]) == 2


def test_a_data_set_is_renamed_and_deleted_by_who_saw_it(client):
    made = client.post("/v1/datasets", json={"name": "shops"})
    path = f"/v1/datasets/{made.json()['id']}"
    seen = {"If-Match": made.headers["etag"]}
    changed = client.patch(path, json={"name": "markets", "description": "2026"}, headers=seen)
    assert (changed.json()["name"], changed.json()["version"]) == ("markets", 2)
    assert client.delete(path, headers=seen).status_code == 412
    assert client.delete(path, headers={"If-Match": changed.headers["etag"]}).status_code == 204
    assert client.get(path).json()["reason"] == "UNKNOWN_DATASET"
    assert client.get("/v1/datasets").json()["items"] == []


def test_a_data_set_that_is_being_filled_stays(platform):
    made = platform.admin.post("/v1/datasets", json={"name": "shops"}).json()
    with platform.store.write() as tx:
        tx.datasets.update(made["id"], None, state="importing")
    answer = platform.admin.delete(f"/v1/datasets/{made['id']}", headers={"If-Match": "*"})
    assert (answer.status_code, answer.json()["reason"]) == (409, "CONFLICT")


def test_a_session_is_its_owners_and_colleagues_read_it(platform):
    anna, bert = platform.as_user("anna", "analyst"), platform.as_user("bert", "analyst")
    session = anna.post("/v1/sessions", json={"title": "Stickers"}).json()
    SessionRecord.model_validate(session)
    path = f"/v1/sessions/{session['id']}"
    entry = anna.post(f"{path}/entries", json={"kind": "hypothesis", "text": "it reads the word"}).json()
    SessionEntry.model_validate(entry)
    assert entry["content"] == {"text": "it reads the word"}
    assert bert.get(f"{path}/entries").json()["items"] == [entry]
    for answer in (
        bert.post(f"{path}/entries", json={"kind": "note", "text": "no"}),
        bert.patch(path, json={"title": "x"}, headers={"If-Match": "*"}),
        bert.delete(path, headers={"If-Match": "*"}),
        platform.admin.delete(path, headers={"If-Match": "*"}),
    ):
        assert (answer.status_code, answer.json()["reason"]) == (403, "FORBIDDEN")
    mine = platform.admin.get("/v1/sessions", params={"created_by": session["created_by"]}).json()["items"]
    assert [s["id"] for s in mine] == [session["id"]]
    assert platform.admin.get("/v1/sessions", params={"created_by": "usr_x"}).json()["items"] == []


def test_lines_are_only_added(platform):
    anna = platform.as_user("anna", "analyst")
    path = f"/v1/sessions/{anna.post('/v1/sessions', json={'title': 't'}).json()['id']}"
    for i in range(3):
        assert anna.post(f"{path}/entries", json={"kind": "note", "text": str(i)}).status_code == 201
    first = anna.get(f"{path}/entries", params={"limit": 2}).json()
    rest = anna.get(f"{path}/entries", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [e["content"]["text"] for e in first["items"] + rest["items"]] == ["2", "1", "0"]
    entry = first["items"][0]["id"]
    assert anna.delete(f"{path}/entries/{entry}").status_code == 404
    assert anna.post(f"{path}/entries", json={"kind": "result", "text": "forged"}).status_code == 422
    unknown = anna.post(f"{path}/entries", json={"kind": "note", "text": "x", "image_id": "img_x"})
    assert unknown.json()["reason"] == "UNKNOWN_IMAGE"
    unknown = anna.post(f"{path}/entries", json={"kind": "note", "text": "x", "result_id": "res_x"})
    assert unknown.json()["reason"] == "UNKNOWN_RESULT"


def test_titles_and_texts_that_cannot_be_stored_are_refused(client):
    for title in ("", "   ", "a\u0000b", "line\nbreak", "x" * 300, 7, None):
        answer = client.post("/v1/sessions", json={"title": title})
        assert (answer.status_code, answer.json()["reason"]) == (422, "INVALID_REQUEST"), title
    raw = client.post(
        "/v1/sessions", content=b'{"title": "\\ud800"}', headers={"Content-Type": "application/json"}
    )
    assert raw.status_code == 422


def test_the_owner_renames_and_deletes_a_session(client):
    made = client.post("/v1/sessions", json={"title": "one"})
    path = f"/v1/sessions/{made.json()['id']}"
    changed = client.patch(path, json={"title": "two"}, headers={"If-Match": made.headers["etag"]})
    assert changed.json()["title"] == "two"
    assert client.delete(path, headers={"If-Match": changed.headers["etag"]}).status_code == 204
    assert client.get(f"{path}/entries").json()["reason"] == "UNKNOWN_SESSION"
