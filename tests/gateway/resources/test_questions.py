"""Questions to the engine: answered as the engine answers, kept with provenance, logged where asked."""

import json

import pytest
from tests.gateway.resources.conftest import TASK, picture

from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
from fulcrum.domain.codec import from_json, to_json
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Scale
from fulcrum.domain.engine import ImageLatents
from fulcrum.domain.results import Attribution, DoseResponse, Effect, SteeredPrediction, Suggestion
from fulcrum.domain.tasks import LogitTarget
from fulcrum.gateway import result_schemas
from fulcrum.gateway.results.schemas import ResultRecord

SUPPRESS = [{"kind": "scale", "latent": 1286, "gain": 0.0}]


def close(one, other):
    """Equal but for rounding of the forwards."""
    return json.dumps(_rounded(one)) == json.dumps(_rounded(other))


def _rounded(value):
    if isinstance(value, float):
        return round(value, 2) + 0.0
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return value


def test_explain_answers_what_the_engine_answers(lab, local_engine):
    answer = lab.ask("explain", n_latents=5, per_token=True)
    result_schemas.Answer[result_schemas.Attribution].model_validate(answer)
    found = from_json(Attribution, answer["value"])
    own = local_engine.attribute(
        demo_model(), demo_sae(), picture(), demo_task(), n_latents=5, per_token=True
    )
    assert [a.latent for a in found.latents] == [a.latent for a in own.latents]
    assert found.target == own.target
    assert found.latents[0].score == pytest.approx(own.latents[0].score, rel=1e-3)
    assert found.latents[0].per_token == pytest.approx(own.latents[0].per_token, rel=1e-2, abs=1e-4)
    assert answer["provenance"]["model_sha256"] == lab.model["info"]["weights_sha256"]
    assert answer["provenance"]["sae_sha256"] == lab.sae["info"]["weights_sha256"]


def test_explain_takes_a_target_and_a_method(lab):
    target = {"kind": "logit", "class_name": "star"}
    value = lab.ask("explain", target=target, method="ablation", n_latents=3)["value"]
    assert value["target"] == target
    assert value["method"] == "ablation"
    assert len(value["latents"]) == 3
    value = lab.ask("explain", method="integrated_gradients", n_latents=2, n_steps=4)["value"]
    assert value["completeness_residual"] is not None


def test_every_answer_can_be_read_again(lab):
    answer = lab.ask("explain", n_latents=2)
    record = lab.client.get(f"/v1/results/{answer['result_id']}").json()
    ResultRecord.model_validate(record)
    assert record["kind"] == "attribution"
    assert record["response"] == {"value": answer["value"]}
    assert record["provenance"] == answer["provenance"]
    assert record["image_id"] == lab.image["id"]
    assert record["request"]["task"] == TASK
    assert record["request"]["sae_id"] == lab.sae["id"]
    assert record["request"]["image_sha256"] == [lab.image["sha256"]]
    assert record["created_by"] == lab.platform.admin_user.id


def test_the_key_of_a_result_is_the_question(lab):
    def key_of(answer):
        return lab.client.get(f"/v1/results/{answer['result_id']}").json()["key"]

    first, again = lab.ask("explain", n_latents=2), lab.ask("explain", n_latents=2)
    other = lab.ask("explain", n_latents=3)
    assert first["result_id"] != again["result_id"]
    assert key_of(first) == key_of(again) != key_of(other)
    found = lab.client.get("/v1/results", params={"key": key_of(first)}).json()["items"]
    assert [r["id"] for r in found] == [again["result_id"], first["result_id"]]
    other_image = lab.upload(picture(1, "fish"))
    lab.image = other_image
    assert key_of(lab.ask("explain", n_latents=2)) != key_of(first)


def test_steer_pairs_before_and_after(lab, local_engine):
    answer = lab.ask("steer", edits=SUPPRESS, n_controls=4)
    result_schemas.Answer[result_schemas.Effect].model_validate(answer)
    found = from_json(Effect, answer["value"])
    own = local_engine.steer(
        demo_model(),
        demo_sae(),
        picture(),
        local_engine.correction(demo_model(), demo_sae(), [Scale(1286, 0.0)]),
        demo_task(),
        n_controls=4,
    )
    assert found.diagnostics.changed
    assert found.before.top == own.before.top
    assert found.after.logits == pytest.approx(own.after.logits, abs=1e-3)
    assert [c.kind for c in found.controls] == [c.kind for c in own.controls]


def test_a_whole_correction_and_a_saved_one_steer_as_their_edits_do(lab):
    by_edits = lab.ask("steer", edits=SUPPRESS, scope={"kind": "patches"}, n_controls=0)
    record = lab.client.get(f"/v1/results/{by_edits['result_id']}").json()
    correction = record["request"]["correction"]
    assert from_json(Correction, correction).scope.kind == "patches"
    whole = lab.ask("steer", correction=correction, n_controls=0)
    saved = lab.post("/v1/corrections", 201, name="no handle", correction=correction, sae_id=lab.sae["id"])
    by_id = lab.ask("steer", correction_id=saved["id"], n_controls=0)
    numbered = lab.ask("steer", correction_id=saved["id"], number=1, n_controls=0)
    for other in (whole, by_id, numbered):
        assert close(other["value"]["after"], by_edits["value"]["after"])
    again = lab.client.get(f"/v1/results/{by_id['result_id']}").json()
    assert again["key"] == record["key"]
    assert again["request"]["correction"] == correction


def test_steering_leaves_the_next_question_untouched(lab):
    before = lab.ask("explain", n_latents=2, deterministic=True)["value"]
    lab.ask("steer", edits=SUPPRESS)
    assert lab.ask("explain", n_latents=2, deterministic=True)["value"] == before


# Not parametrised: each needs the same platform, and none leaves anything behind.
MEANINGLESS = [
    ({}, "nothing to try"),
    ({"edits": SUPPRESS, "correction_id": "cor_x"}, "exclude each other"),
    ({"correction_id": "cor_x", "scope": {"kind": "cls"}}, "scope belongs to edits"),
    ({"edits": SUPPRESS, "number": 1}, "number belongs to correction_id"),
    ({"edits": SUPPRESS * 2}, "once in a correction"),
    ({"edits": SUPPRESS, "scope": {"kind": "patch_list"}}, "at least one patch"),
    ({"edits": SUPPRESS, "target": {"kind": "logit", "class_name": "dog"}}, "not in the class set"),
    ({"edits": SUPPRESS, "target": {"kind": "margin", "class_name": "cup", "versus": "cup"}}, "itself"),
    ({"edits": SUPPRESS, "task": {"names": ["cup", "cup"]}}, "must differ"),
    ({"edits": SUPPRESS, "gain": 0}, "Extra inputs"),
    ({"edits": [{"kind": "explode", "latent": 1}]}, "explode"),
    ({"edits": [{"kind": "scale", "latent": 1286, "gain": 1e300}]}, "1000000"),
    ({"edits": [{"kind": "scale", "latent": 10**8, "gain": 0.0}]}, "100000000"),
]
REASONS = {"INVALID_REQUEST", "INVALID_EDIT", "INVALID_TARGET", "INVALID_PROMPT", "LATENT_OUT_OF_RANGE"}


def test_a_steering_question_that_cannot_be_meant_says_why(lab):
    for body, detail in MEANINGLESS:
        problem = lab.ask("steer", 422, **body)
        assert detail in json.dumps(problem)
        assert problem["reason"] in REASONS
    assert lab.client.get("/v1/results").json()["items"] == []


def test_a_correction_for_other_weights_is_refused(lab):
    record = lab.client.get(f"/v1/results/{lab.ask('steer', edits=SUPPRESS)['result_id']}").json()
    other = {**record["request"]["correction"], "sae_sha256": "0" * 64}
    assert lab.ask("steer", 422, correction=other)["reason"] == "SAE_DOES_NOT_FIT"
    answer = lab.post("/v1/corrections", 422, name="x", correction=other, sae_id=lab.sae["id"])
    assert answer["reason"] == "SAE_DOES_NOT_FIT"


def test_latents_of_an_image_come_as_csr_and_are_not_kept(lab, local_engine):
    answer = lab.client.get(f"/v1/images/{lab.image['id']}/latents", params={"sae_id": lab.sae["id"]})
    result_schemas.Reading[result_schemas.ImageLatents].model_validate(answer.json())
    found = from_json(ImageLatents, answer.json()["value"])
    own = local_engine.encode_latents(demo_model(), demo_sae(), picture())
    assert found.offsets[-1] == len(found.latents) == len(found.values)
    assert found.latents.tolist() == own.latents.tolist()
    assert found.values == pytest.approx(own.values, rel=1e-3)
    assert lab.client.get("/v1/results").json()["items"] == []


def test_predictions_keep_the_order_of_images(lab):
    other = lab.upload(picture(3, "fish"))
    ids = [other["id"], lab.image["id"], other["id"]]
    answer = lab.post("/v1/predictions", model_id=lab.model["id"], image_ids=ids, task=TASK)
    value = answer["value"]
    assert len(value) == 3
    assert close(value[0], value[2])
    assert not close(value[0], value[1])
    assert value[1]["class_names"][max(range(12), key=value[1]["logits"].__getitem__)] == "cup"
    assert answer["provenance"]["sae_sha256"] is None
    record = lab.client.get(f"/v1/results/{answer['result_id']}").json()
    assert record["image_id"] is None
    assert record["request"]["image_ids"] == ids


def test_predictions_with_a_correction_are_paired(lab):
    ids = [lab.image["id"], lab.upload(picture(3, "fish"))["id"]]
    answer = lab.post(
        "/v1/predictions",
        model_id=lab.model["id"],
        sae_id=lab.sae["id"],
        image_ids=ids,
        task=TASK,
        edits=SUPPRESS,
    )
    found = from_json(tuple[SteeredPrediction, ...], answer["value"])
    plain = lab.post("/v1/predictions", model_id=lab.model["id"], image_ids=ids, task=TASK)["value"]
    assert close([to_json(p.before) for p in found], plain)
    assert found[0].changed
    steered = lab.ask("steer", edits=SUPPRESS, n_controls=0)["value"]
    assert found[0].after.logits == pytest.approx(steered["after"]["logits"], abs=1e-3)


IMPOSSIBLE = [
    ({"edits": SUPPRESS}, 422, "INVALID_REQUEST"),  # no SAE
    ({"image_ids": []}, 422, "INVALID_REQUEST"),
    ({"image_ids": ["img_nothing"]}, 404, "UNKNOWN_IMAGE"),
    ({"model_id": "mdl_nothing"}, 404, "UNKNOWN_MODEL"),
    ({"sae_id": "sae_nothing", "edits": SUPPRESS}, 404, "UNKNOWN_SAE"),
    ({"image_ids": ["img_x"] * 1001}, 422, "INVALID_REQUEST"),
    (
        {"image_ids": ["img_x"] * 1000, "task": {"names": [f"c{i}" for i in range(1001)]}},
        413,
        "PAYLOAD_TOO_LARGE",
    ),
]


def test_a_prediction_that_cannot_be_made_says_why(lab):
    for change, status, reason in IMPOSSIBLE:
        body = {"model_id": lab.model["id"], "image_ids": [lab.image["id"]], "task": TASK}
        assert lab.post("/v1/predictions", status, **body | change)["reason"] == reason


def test_sweep_streams_points_and_the_whole(lab, local_engine):
    events = lab.stream("sweep", latents=[1286], gains=[0.0, 0.5, 1.0, 2.0])
    names = [name for name, _ in events]
    assert names == ["points"] * (len(names) - 1) + ["done"]
    done = events[-1][1]
    result_schemas.Answer[result_schemas.DoseResponse].model_validate(done)
    found = from_json(DoseResponse, done["value"])
    own = local_engine.sweep(demo_model(), demo_sae(), picture(), [1286], [0.0, 0.5, 1.0, 2.0], demo_task())
    assert found.gains.tolist() == own.gains.tolist()
    assert found.logits == pytest.approx(own.logits, abs=1e-3)
    points = [g for name, data in events if name == "points" for g in data["gains"]]
    assert points == found.gains.tolist()
    record = lab.client.get(f"/v1/results/{done['result_id']}").json()
    assert record["kind"] == "dose_response"
    assert record["response"]["value"] == done["value"]


def test_suggest_streams_what_it_finds_and_keeps_it_together(lab):
    wanted = lab.ask("explain", n_latents=1)["value"]["target"]["versus"]
    events = lab.stream("suggest", wanted=wanted, max_latents=3)
    assert [name for name, _ in events[:-1]] == ["suggestion"] * (len(events) - 1)
    name, done = events[-1]
    assert name == "done"
    result_schemas.Answer[list[result_schemas.Suggestion]].model_validate(done)
    assert done["value"] == [data for _, data in events[:-1]]
    assert from_json(tuple[Suggestion, ...], done["value"])
    record = lab.client.get(f"/v1/results/{done['result_id']}").json()
    assert record["kind"] == "suggestions"


def test_what_fails_after_the_start_of_a_stream_is_an_error_event(lab):
    top = lab.ask("explain", n_latents=1)["value"]["target"]["class_name"]
    ((name, problem),) = lab.stream("suggest", wanted=top)
    assert name == "error"
    assert problem["reason"] == "INVALID_TARGET"
    assert problem["status"] == 422
    assert problem["request_id"]


def test_what_can_be_refused_before_a_stream_is_refused_with_a_status(lab):
    assert lab.ask("suggest", 422, wanted="dog")["reason"] == "INVALID_TARGET"
    assert lab.ask("sweep", 422, latents=[], gains=[1.0])["reason"] == "INVALID_REQUEST"
    assert lab.ask("sweep", 404, sae_id="sae_x", latents=[1], gains=[1.0])["reason"] == "UNKNOWN_SAE"


def test_answers_are_logged_in_the_askers_session(lab):
    session = lab.post("/v1/sessions", 201, title="Why cup?")
    lab.post(f"/v1/sessions/{session['id']}/entries", 201, kind="hypothesis", text="the handle")
    explained = lab.ask("explain", n_latents=2, session_id=session["id"])
    swept = lab.stream("sweep", latents=[1286], gains=[0.0], session_id=session["id"])[-1][1]
    lines = lab.client.get(f"/v1/sessions/{session['id']}/entries").json()["items"]
    assert [(x["kind"], x["result_id"]) for x in lines] == [
        ("result", swept["result_id"]),
        ("result", explained["result_id"]),
        ("hypothesis", None),
    ]
    assert lines[1]["image_id"] == lab.image["id"]


def test_a_colleagues_session_takes_no_answers_of_mine(lab):
    session = lab.post("/v1/sessions", 201, title="Mine")
    lab.client = lab.platform.as_user("colleague", "analyst")
    assert lab.ask("explain", 403, session_id=session["id"])["reason"] == "FORBIDDEN"


def test_logit_target_of_a_class_set_of_one(lab):
    value = lab.ask("explain", task={"names": ["cup"]}, n_latents=1)["value"]
    assert value["target"] == to_json(LogitTarget("cup"))


def test_the_largest_pushes_still_have_an_answer(lab):
    for kind, number in (("scale", "gain"), ("set", "value"), ("add", "value"), ("mean_ablate", "mean")):
        for amount in (1e6, -1e6):
            edits = [{"kind": kind, "latent": 1286, number: amount}]
            value = lab.ask("steer", edits=edits, n_controls=2)["value"]
            assert value["diagnostics"]["changed"], (kind, amount)
    value = lab.stream("sweep", latents=[1286, 1081], gains=[-1e6, 1e6])[-1][1]["value"]
    assert len(value["logits"]) == 2
