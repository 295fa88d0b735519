"""Corrections: immutable versions under a name, exported as the file that everything else reads."""

import hashlib
import json
import threading

import pytest

from fulcrum.domain import corrections as domain
from fulcrum.domain.codec import to_json
from fulcrum.domain.edits import Add, LatentCondition, Scale, Scope
from fulcrum.domain.tasks import ClassSet
from fulcrum.gateway.corrections import schemas

CORRECTION = domain.Correction(
    model_sha256="a" * 64,
    sae_sha256="b" * 64,
    hook_point="visual.blocks.3.resid_post",
    edits=(Scale(7, 0), Add(9, 0.5)),
    scope=Scope("patch_list", (0, 3)),
    conditions=(LatentCondition(7, ">=", 1.5),),
    task=ClassSet(("cup", "fish")),
    origin=domain.Origin("image_search", ("c" * 64,), note="found on one image"),
)
BODY = to_json(CORRECTION)


@pytest.fixture
def client(platform):
    return platform.admin


def save(client, **more):
    answer = client.post("/v1/corrections", json={"name": "no sticker", "correction": BODY} | more)
    assert answer.status_code == 201, answer.text
    return answer


def add_version(client, record, etag, **change):
    return client.post(
        f"/v1/corrections/{record['id']}/versions",
        json={"correction": {**BODY, **change}, "note": "stronger"},
        headers={"If-Match": etag},
    )


def test_a_saved_correction_has_version_1_with_its_canonical_hash(client):
    answer = save(client, description="for shops", note="first")
    record = answer.json()
    schemas.CorrectionRecord.model_validate(record)
    assert (record["state"], record["latest"], record["version"]) == ("draft", 1, 1)
    assert answer.headers["etag"] == '"1"'
    version = client.get(f"/v1/corrections/{record['id']}/versions/1").json()
    schemas.CorrectionVersion.model_validate(version)
    assert version["sha256"] == CORRECTION.sha256
    assert version["correction"] == BODY
    assert version["note"] == "first"


def test_versions_are_added_and_earlier_ones_stay(client):
    saved = save(client)
    record = saved.json()
    added = add_version(client, record, saved.headers["etag"], drop_error=True)
    assert added.status_code == 201, added.text
    assert added.json()["number"] == 2
    assert client.get(f"/v1/corrections/{record['id']}").headers["etag"] == added.headers["etag"]
    listed = client.get(f"/v1/corrections/{record['id']}/versions").json()["items"]
    assert [v["number"] for v in listed] == [2, 1]
    assert listed[1]["correction"] == BODY
    assert client.get(f"/v1/corrections/{record['id']}").json()["latest"] == 2
    assert client.get(f"/v1/corrections/{record['id']}/versions/3").json()["reason"] == "UNKNOWN_CORRECTION"


def test_a_version_needs_the_etag_and_a_change(client):
    saved = save(client)
    record, etag = saved.json(), saved.headers["etag"]
    path = f"/v1/corrections/{record['id']}/versions"
    assert client.post(path, json={"correction": BODY}).json()["reason"] == "MISSING_PRECONDITION"
    assert add_version(client, record, etag).json()["reason"] == "ALREADY_EXISTS"
    # The origin is history, not identity: it alone makes no new version.
    assert add_version(client, record, etag, origin={"kind": "manual"}).json()["reason"] == "ALREADY_EXISTS"
    assert add_version(client, record, etag, drop_error=True).status_code == 201
    stale = add_version(client, record, etag, conditions=[])
    assert (stale.status_code, stale.json()["reason"]) == (412, "STALE_VERSION")


def test_of_two_who_saw_the_same_version_one_adds_the_next(platform):
    saved = save(platform.admin)
    record, etag = saved.json(), saved.headers["etag"]
    token = platform.admin.headers["authorization"].removeprefix("Bearer ")
    clients = [platform.client(token) for _ in range(4)]
    found = []

    def add(number, client):
        found.append(add_version(client, record, etag, edits=[to_json(Scale(number, 0.0))]).status_code)

    threads = [threading.Thread(target=add, args=pair) for pair in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [201, 412, 412, 412]
    assert platform.admin.get(f"/v1/corrections/{record['id']}").json()["latest"] == 2


def test_the_exported_file_is_what_domain_reads_and_tells_where_it_was_found(client):
    saved = save(client, name="Kein Aufkleber / été")
    record = saved.json()
    add_version(client, record, saved.headers["etag"], drop_error=True)
    answer = client.get(f"/v1/corrections/{record['id']}:export", params={"number": 1})
    assert answer.headers["content-type"] == "application/json"
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="Kein-Aufkleber-t.v1.json"')
    assert "filename*=UTF-8''Kein%20Aufkleber%20%2F%20%C3%A9t%C3%A9.v1.json" in disposition
    again = domain.from_dict(json.loads(answer.content))
    assert again == CORRECTION
    assert again.origin.image_sha256 == CORRECTION.origin.image_sha256
    assert answer.headers["etag"] == f'"{CORRECTION.sha256}"'
    # Without the origin the bytes are the canonical JSON, so that anybody can check the identity.
    content = json.loads(answer.content)
    del content["origin"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(canonical.encode()).hexdigest() == CORRECTION.sha256
    newest = client.get(f"/v1/corrections/{record['id']}:export")
    assert json.loads(newest.content)["drop_error"] is True
    missing = client.get(f"/v1/corrections/{record['id']}:export", params={"number": 9})
    assert (missing.status_code, missing.json()["reason"]) == (404, "UNKNOWN_CORRECTION")


def test_an_export_goes_back_in_unchanged(client):
    record = save(client).json()
    content = client.get(f"/v1/corrections/{record['id']}:export").json()
    again = save(client, name="again", correction=content).json()
    version = client.get(f"/v1/corrections/{again['id']}/versions/1").json()
    assert version["sha256"] == CORRECTION.sha256
    assert version["correction"] == BODY


def test_numbers_that_mean_the_same_are_the_same_correction(client):
    whole = {
        **BODY,
        "edits": [{"kind": "scale", "latent": 7, "gain": 0}, {"kind": "add", "latent": 9, "value": 0.5}],
    }
    record = save(client, correction=whole).json()
    assert client.get(f"/v1/corrections/{record['id']}/versions/1").json()["sha256"] == CORRECTION.sha256


def test_name_and_description_change_without_a_version(client):
    saved = save(client)
    path = f"/v1/corrections/{saved.json()['id']}"
    done = client.patch(
        path, json={"description": "now with words"}, headers={"If-Match": saved.headers["etag"]}
    )
    assert (done.json()["description"], done.json()["name"], done.json()["latest"]) == (
        "now with words",
        "no sticker",
        1,
    )
    assert client.patch(path, json={}, headers={"If-Match": "*"}).json()["reason"] == "INVALID_REQUEST"
    assert client.patch(path, json={"state": "approved"}, headers={"If-Match": "*"}).status_code == 422


def test_a_deleted_correction_is_gone_and_its_name_is_free(client):
    saved = save(client)
    path = f"/v1/corrections/{saved.json()['id']}"
    assert client.post("/v1/corrections", json={"name": "no sticker", "correction": BODY}).status_code == 409
    assert client.delete(path).status_code == 428
    assert client.delete(path, headers={"If-Match": saved.headers["etag"]}).status_code == 204
    for gone in (path, f"{path}:export", f"{path}/versions", f"{path}/versions/1"):
        assert client.get(gone).status_code == 404, gone
    save(client)


def test_a_correction_is_registered_with_the_model_of_its_sae(lab):
    answer = lab.ask("steer", edits=[{"kind": "scale", "latent": 7, "gain": 0.0}], n_controls=0)
    content = lab.client.get(f"/v1/results/{answer['result_id']}").json()["request"]["correction"]
    record = save(lab.client, correction=content, sae_id=lab.sae["id"]).json()
    assert (record["model_id"], record["sae_id"]) == (lab.model["id"], lab.sae["id"])
    found = lab.client.get("/v1/corrections", params={"sae_id": lab.sae["id"]}).json()["items"]
    assert [c["id"] for c in found] == [record["id"]]
    other = lab.client.post(
        f"/v1/corrections/{record['id']}/versions",
        json={"correction": {**content, "model_sha256": "0" * 64}},
        headers={"If-Match": "*"},
    )
    assert other.json()["reason"] == "SAE_DOES_NOT_FIT"
    unknown = lab.client.post(
        "/v1/corrections", json={"name": "x", "correction": content, "model_id": "mdl_x"}
    )
    assert unknown.json()["reason"] == "UNKNOWN_MODEL"


def test_what_is_no_correction_is_refused_with_its_field(client):
    cases = [
        ({"hook_point": "visual.block.3"}, "hook_point"),
        ({"model_sha256": "short"}, "model_sha256"),
        ({"edits": [{"kind": "scale", "latent": 7}]}, "gain"),
        ({"extra": 1}, "extra"),
        ({"origin": {"image_sha256": "x"}}, "image_sha256"),
    ]
    for change, field in cases:
        answer = client.post("/v1/corrections", json={"name": "x", "correction": {**BODY, **change}})
        assert answer.status_code == 422
        assert field in json.dumps(answer.json()["errors"])
    answer = client.post(
        "/v1/corrections", json={"name": "x", "correction": {**BODY, "edits": [BODY["edits"][0]] * 2}}
    )
    assert answer.json()["reason"] == "INVALID_EDIT"


def test_changes_stand_in_the_audit_log(platform):
    record = save(platform.admin).json()
    with platform.store.read() as tx:
        events = tx.audit.list(subject=record["id"]).items
    assert [(e.action, e.user_id) for e in events] == [("correction.create", platform.admin_user.id)]
    assert events[0].detail["sha256"] == CORRECTION.sha256
