"""Models and SAEs: registered by admins, loaded behind the request, used by everybody in the project."""

import io
import json

import pytest
from tests.gateway.resources.conftest import wait_until_loaded

from fulcrum.demo.shipped import WEIGHTS
from fulcrum.domain.errors import CorruptCheckpoint, InvalidSaeConfig
from fulcrum.gateway.models.schemas import ModelRecord
from fulcrum.gateway.saes.schemas import SaeRecord
from fulcrum.gateway.saes.uploads import check_config, check_weights

CFG = WEIGHTS / "sae" / "cfg.json"
SAE_WEIGHTS = WEIGHTS / "sae" / "sae_weights.safetensors"


def upload_sae(client, model_id, name="uploaded", cfg=None, weights=None, **fields):
    return client.post(
        "/v1/saes:upload",
        data={"name": name, "model_id": model_id, **fields},
        files={
            "cfg": ("cfg.json", CFG.read_bytes() if cfg is None else cfg),
            "weights": ("w.safetensors", SAE_WEIGHTS.read_bytes() if weights is None else weights),
        },
    )


def test_a_registered_model_becomes_ready_and_says_what_it_is(lab):
    ModelRecord.model_validate(lab.model)
    SaeRecord.model_validate(lab.sae)
    assert lab.model["info"]["ref"]["model_name"] == "folder:demo/clip"  # as asked for, never a path
    assert lab.sae["info"]["d_sae"] > 0
    assert str(WEIGHTS) not in json.dumps([lab.model, lab.sae])
    listed = lab.client.get("/v1/models").json()
    assert [m["id"] for m in listed["items"]] == [lab.model["id"]]
    assert [
        s["id"] for s in lab.client.get("/v1/saes", params={"model_id": lab.model["id"]}).json()["items"]
    ] == [lab.sae["id"]]
    assert lab.client.get("/v1/saes", params={"model_id": "mdl_x"}).json()["items"] == []


def test_a_model_that_cannot_be_loaded_says_why(platform):
    for name in ("no-such-arch", "local-dir:/etc", "folder:demo/../../secret", "folder:nowhere/x"):
        answer = platform.admin.post("/v1/models", json={"name": name, "model_name": name})
        assert answer.status_code == 201
        record = wait_until_loaded(platform.admin, f"/v1/models/{answer.json()['id']}")
        assert record["state"] == "failed"
        assert record["error"].startswith("UNKNOWN_MODEL: ")
        assert record["info"] is None
        warmed = platform.admin.post(f"/v1/models/{record['id']}:warm")
        assert warmed.status_code == 404
        assert warmed.json()["reason"] == "UNKNOWN_MODEL"


def test_random_weights_exclude_pretrained_ones(platform):
    body = {"name": "x", "model_name": "ViT-B-32", "pretrained": "openai", "random_weights": True}
    assert platform.admin.post("/v1/models", json=body).json()["reason"] == "INVALID_REQUEST"


def test_names_are_taken_once_and_free_after_deletion(lab):
    client = lab.client
    body = {"name": "demo", "model_name": "folder:demo/clip"}
    assert client.post("/v1/models", json=body).json()["reason"] == "ALREADY_EXISTS"
    sae = client.get(f"/v1/saes/{lab.sae['id']}")
    path = f"/v1/models/{lab.model['id']}"
    model = client.get(path)
    blocked = client.delete(path, headers={"If-Match": model.headers["etag"]})
    assert blocked.status_code == 409
    assert lab.sae["id"] in blocked.json()["detail"]
    assert (
        client.delete(f"/v1/saes/{lab.sae['id']}", headers={"If-Match": sae.headers["etag"]}).status_code
        == 204
    )
    assert client.delete(path, headers={"If-Match": model.headers["etag"]}).status_code == 204
    assert client.get(path).status_code == 404
    assert client.post("/v1/models", json=body).status_code == 201


def test_a_change_needs_the_version_that_was_seen(lab):
    for path in (f"/v1/saes/{lab.sae['id']}", f"/v1/models/{lab.model['id']}"):
        seen = lab.client.get(path).headers["etag"]
        assert lab.client.patch(path, json={"name": "new"}).status_code == 428
        done = lab.client.patch(path, json={"name": "new"}, headers={"If-Match": seen})
        assert (done.status_code, done.json()["name"]) == (200, "new")
        stale = lab.client.patch(path, json={"name": "newer"}, headers={"If-Match": seen})
        assert (stale.status_code, stale.json()["reason"]) == (412, "STALE_VERSION")
        assert lab.client.delete(path).status_code == 428
        if "saes" in path:
            assert lab.client.delete(path, headers={"If-Match": seen}).status_code == 412
            assert lab.client.delete(path, headers={"If-Match": done.headers["etag"]}).status_code == 204


def test_warming_answers_with_the_record(lab):
    assert lab.post(f"/v1/models/{lab.model['id']}:warm")["state"] == "ready"
    assert lab.post(f"/v1/saes/{lab.sae['id']}:warm")["state"] == "ready"


def test_an_uploaded_sae_answers_as_the_folder_it_came_from(lab):
    answer = upload_sae(lab.client, lab.model["id"])
    assert answer.status_code == 201, answer.text
    record = wait_until_loaded(lab.client, f"/v1/saes/{answer.json()['id']}")
    assert record["state"] == "ready", record
    assert record["source"].startswith("artifact:")
    assert record["info"]["weights_sha256"] == lab.sae["info"]["weights_sha256"]
    one = lab.ask("explain", n_latents=3)["value"]["latents"]
    other = lab.ask("explain", n_latents=3, sae_id=record["id"])["value"]["latents"]
    assert [x["latent"] for x in one] == [x["latent"] for x in other]


def test_what_is_no_sae_is_refused_before_it_is_kept(lab):
    whole = SAE_WEIGHTS.read_bytes()
    cases = [
        (b"no json", None, 422, "INVALID_SAE_CONFIG"),
        (b"[1]", None, 422, "INVALID_SAE_CONFIG"),
        (None, whole[:1000], 422, "CORRUPT_CHECKPOINT"),
        (None, b"", 422, "CORRUPT_CHECKPOINT"),
        (None, b"\x80\x04pickle" * 9, 422, "CORRUPT_CHECKPOINT"),
    ]
    for cfg, weights, status, reason in cases:
        answer = upload_sae(lab.client, lab.model["id"], cfg=cfg, weights=weights)
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    answer = upload_sae(lab.client, lab.model["id"], weights=bytes(33 << 20))
    assert (answer.status_code, answer.json()["reason"]) == (413, "PAYLOAD_TOO_LARGE")
    assert len(lab.client.get("/v1/saes").json()["items"]) == 1


def test_an_artifact_of_others_cannot_be_registered_by_its_hash(lab):
    body = {"name": "x", "model_id": lab.model["id"], "source": f"artifact:{'0' * 64}:{'1' * 64}"}
    assert lab.post("/v1/saes", 422, **body)["reason"] == "INVALID_REQUEST"
    for source in ("/etc/passwd", "local-dir:/x", "../sae"):
        assert lab.post("/v1/saes", 422, **body | {"source": source})["reason"] == "INVALID_REQUEST"


def test_an_sae_that_does_not_fit_fails_with_the_reason(lab):
    config = json.loads(CFG.read_bytes())
    config["d_in"] = 17
    answer = upload_sae(lab.client, lab.model["id"], cfg=json.dumps(config).encode())
    record = wait_until_loaded(lab.client, f"/v1/saes/{answer.json()['id']}")
    assert record["state"] == "failed"
    assert record["error"].split(":")[0] in {"CORRUPT_CHECKPOINT", "INVALID_SAE_CONFIG", "SAE_DOES_NOT_FIT"}
    assert lab.ask("explain", 422, sae_id=record["id"])["reason"] == record["error"].split(":")[0]


def test_a_load_that_a_gateway_left_behind_is_taken_up_again(lab):
    with lab.platform.store.write() as tx:
        tx.models.update(lab.model["id"], None, state="loading", info=None)
        tx.saes.update(lab.sae["id"], None, state="loading", info=None)
    assert wait_until_loaded(lab.client, f"/v1/saes/{lab.sae['id']}")["state"] == "ready"
    assert wait_until_loaded(lab.client, f"/v1/models/{lab.model['id']}")["state"] == "ready"


def test_a_question_loads_what_was_never_loaded(lab):
    with lab.platform.store.write() as tx:
        tx.models.update(lab.model["id"], None, state="registered", info=None)
        tx.saes.update(lab.sae["id"], None, state="registered", info=None)
    answer = lab.ask("steer", edits=[{"kind": "scale", "latent": 1, "gain": 0.0}], n_controls=0)
    assert answer["provenance"]["sae_sha256"] == lab.sae["info"]["weights_sha256"]
    assert lab.client.get(f"/v1/saes/{lab.sae['id']}").json()["state"] == "ready"


def test_a_deleted_sae_answers_no_more_questions(lab):
    assert lab.client.delete(f"/v1/saes/{lab.sae['id']}", headers={"If-Match": "*"}).status_code == 204
    assert lab.ask("explain", 404)["reason"] == "UNKNOWN_SAE"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 8, (5).to_bytes(8, "little") + b"nojsn", (2).to_bytes(8, "little") + b"{}",
     (2).to_bytes(8, "little") + b"[]", (41).to_bytes(8, "little") + b'{"a":{"data_offsets":[0,9],"x":"yyyyyy"}}'],
)  # fmt: skip
def test_weights_without_a_whole_header_are_corrupt(content):
    with pytest.raises(CorruptCheckpoint):
        check_weights(io.BytesIO(content))


def test_the_demo_weights_pass_the_look_and_are_rewound():
    file = io.BytesIO(SAE_WEIGHTS.read_bytes())
    check_weights(file)
    assert file.tell() == 0


def test_a_configuration_of_megabytes_is_none():
    with pytest.raises(InvalidSaeConfig, match="more than"):
        check_config(b" " * (2 << 20))


def test_a_failed_load_leaves_the_others_usable(lab):
    body = {"name": "untrained", "model_id": lab.model["id"], "source": "untrained:oops"}
    record = wait_until_loaded(lab.client, f"/v1/saes/{lab.post('/v1/saes', 201, **body)['id']}")
    assert record["state"] == "failed"
    assert record["error"]
    assert lab.ask("explain", n_latents=1)["value"]["latents"]


def test_a_header_that_would_fill_the_memory_is_not_read():
    header = b"{" + b" " * (5 << 20) + b"}"
    with pytest.raises(CorruptCheckpoint, match=r"header of 5242882 bytes.*at most 4194304"):
        check_weights(io.BytesIO(len(header).to_bytes(8, "little") + header))
