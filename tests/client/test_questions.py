"""What questions send, held against the very schemas that the gateway reads them with."""

import json

import httpx
import pytest
from tests.client.samples import ATTRIBUTION, BEFORE, EFFECT, IMAGE, MODEL, NAMES, PROVENANCE, SAE
from tests.client.scripted import TOKEN, URL
from tests.client.test_answers import TRIED, WHY

from fulcrum.client import ClassSet, Client, LatentCondition, LogitTarget, Scale, Scope, questions
from fulcrum.client.answers import Explanation
from fulcrum.domain import errors
from fulcrum.domain.codec import to_json
from fulcrum.domain.records import CorrectionRecord, CorrectionVersion
from fulcrum.gateway.corrections.schemas import NewCorrection
from fulcrum.gateway.explain.schemas import ExplainQuestion
from fulcrum.gateway.predictions.schemas import MAX_NUMBERS, PredictQuestion
from fulcrum.gateway.questions import tries_something
from fulcrum.gateway.steer.schemas import SteerQuestion

CORRECTION = TRIED.correction
RECORD = CorrectionRecord("cor_1", "prj_1", "less", "usr_1", IMAGE.created_at, latest=3, sae_id=SAE.id)
VERSION = CorrectionVersion("cor_1", 3, CORRECTION.sha256, CORRECTION, "usr_1", IMAGE.created_at)
ANSWERS = {"explain": ATTRIBUTION, "steer": EFFECT, "predictions": [BEFORE]}


class Gateway:
    """Keeps what it was asked; knows one image, model, SAE and correction."""

    def __init__(self, saes=(SAE,), models=(MODEL,)):
        self.asked, self.keys, self.saes, self.models = [], [], saes, models

    def __call__(self, request):
        path = request.url.path.removeprefix("/v1/")
        content = request.read()
        body = json.loads(content) if request.headers.get("content-type") == "application/json" else None
        self.asked.append((request.method, path, body))
        self.keys.append(request.headers.get("Idempotency-Key"))
        verb = path.rpartition(":")[2]
        if verb in ANSWERS:
            value = ANSWERS[verb]
            if verb == "predictions" and body.get("sae_id"):
                value = [{"before": BEFORE, "after": BEFORE, "changed": False}] * len(body["image_ids"])
            elif verb == "predictions":
                value = [BEFORE] * len(body["image_ids"])
            return self.answer({"result_id": "res_1", "value": value, "provenance": PROVENANCE})
        one = {
            "images": IMAGE, f"images/{IMAGE.id}": IMAGE, f"saes/{SAE.id}": SAE, f"models/{MODEL.id}": MODEL,
            "corrections": RECORD, "corrections/cor_1": RECORD, "corrections/cor_1/versions/3": VERSION,
        }  # fmt: skip
        if path in ("saes", "models"):
            return self.answer({"items": list(getattr(self, path)), "next_cursor": None})
        return self.answer(one[path])

    @staticmethod
    def answer(value):
        return httpx.Response(200, json=to_json(value))

    def body(self, path, schema):
        """The last body that went there, as the gateway reads it."""
        content = [b for _, p, b in self.asked if p == path][-1]
        return schema.model_validate_json(json.dumps(content))


@pytest.fixture
def gateway():
    return Gateway()


@pytest.fixture
def client(gateway):
    with Client(URL, TOKEN, transport=httpx.MockTransport(gateway)) as opened:
        yield opened


def test_an_explanation_asks_what_was_meant(client, gateway):
    why = client.explain(
        IMAGE, list(NAMES), target=LogitTarget("cat"), method="ablation", n_latents=3, n_steps=8, per_token=True,
        deterministic=True, session="ses_1",
    )  # fmt: skip
    body = gateway.body(f"images/{IMAGE.id}:explain", ExplainQuestion)
    assert body.sae_id == SAE.id
    assert (body.task.names, body.task.templates) == (list(NAMES), ["a photo of a {}"])
    assert (body.target.kind, body.target.class_name) == ("logit", "cat")
    assert (body.method, body.n_latents, body.n_steps, body.per_token) == ("ablation", 3, 8, True)
    assert (body.deterministic, body.session_id) == (True, "ses_1")
    assert isinstance(why, Explanation)
    assert why.task == ClassSet(NAMES)


def test_what_is_left_out_keeps_the_services_defaults(client, gateway):
    client.explain(IMAGE, ClassSet(NAMES, ("{}",)))
    body = gateway.body(f"images/{IMAGE.id}:explain", ExplainQuestion)
    assert (body.target, body.n_steps, body.session_id) == (None, 32, None)
    assert body.task.templates == ["{}"]


def test_an_explanation_stands_for_its_image_sae_and_prompts(client, gateway):
    client.steer(WHY, Scale(7, 0))
    assert [path for _, path, _ in gateway.asked] == [f"images/{IMAGE.id}:steer"]
    body = gateway.body(f"images/{IMAGE.id}:steer", SteerQuestion)
    assert tries_something(body)
    assert [(e.latent, e.gain) for e in body.edits] == [(7, 0.0)]
    assert body.task.names == list(NAMES)


def test_edits_come_with_scope_and_conditions(client, gateway):
    tried = client.steer(
        WHY, [Scale(7, 0.0), Scale(3, 2.0)], scope=Scope("patch_list", (1, 2)),
        conditions=[LatentCondition(7, ">=", 0.5)], drop_error=True, n_controls=0, seed=5,
    )  # fmt: skip
    body = gateway.body(f"images/{IMAGE.id}:steer", SteerQuestion)
    assert tries_something(body)
    assert body.scope.patches == [1, 2]
    assert body.conditions[0].threshold == 0.5
    assert (body.drop_error, body.n_controls, body.seed) == (True, 0, 5)
    assert tried.correction.scope == Scope("patch_list", (1, 2))
    assert tried.correction.drop_error


@pytest.mark.parametrize("change", [CORRECTION, RECORD, VERSION])
def test_a_correction_goes_whole_or_by_its_id_and_brings_its_task(client, gateway, change):
    tried = client.steer(IMAGE, change)
    body = gateway.body(f"images/{IMAGE.id}:steer", SteerQuestion)
    assert tries_something(body)
    assert (body.correction is None) == (change is not CORRECTION)
    assert (body.correction_id, body.number) == ((None, None) if change is CORRECTION else ("cor_1", 3))
    assert tried.edits == CORRECTION.edits
    assert tried.correction.sha256 == CORRECTION.sha256
    with pytest.raises(errors.InvalidEdit):
        client.steer(IMAGE, change, scope=Scope("cls"))


def test_saving_what_was_steered_sends_the_correction_and_what_it_was_made_for(client, gateway):
    client.save_correction("less sticker", TRIED, description="found by hand", note="first")
    body = gateway.body("corrections", NewCorrection)
    assert (body.name, body.description, body.note) == ("less sticker", "found by hand", "first")
    assert (body.model_id, body.sae_id) == (SAE.model_id, SAE.id)
    assert body.correction.model_dump()["edits"] == to_json(CORRECTION)["edits"]


def test_only_what_would_leave_two_traces_carries_a_key(client, gateway):
    client.explain(IMAGE, NAMES)
    client.explain(IMAGE, NAMES, session="ses_1")
    client.images.upload(b"\x89PNG\r\n\x1a\n")
    client.save_correction("less", TRIED)
    keys = [(path, key is not None) for (method, path, _), key in zip(gateway.asked, gateway.keys, strict=True)
            if method == "POST"]  # fmt: skip
    explain = f"images/{IMAGE.id}:explain"
    assert keys == [(explain, False), (explain, True), ("images", False), ("corrections", True)]


def test_many_images_go_in_several_calls(client, gateway, monkeypatch):
    monkeypatch.setattr("fulcrum.client.questions.MAX_IMAGES_OF_A_CALL", 2)
    found = client.predict([IMAGE] * 5, NAMES)
    bodies = [
        PredictQuestion.model_validate_json(json.dumps(b)) for _, p, b in gateway.asked if p == "predictions"
    ]
    assert [len(b.image_ids) for b in bodies] == [2, 2, 1]
    assert len(found) == len(found.before) == 5
    assert len(found.result_ids) == 3
    monkeypatch.setattr("fulcrum.client.questions.MAX_LOGITS_OF_A_CALL", 7)
    assert len(client.predict([IMAGE] * 3, NAMES, correction=Scale(7, 0.0)).result_ids) == 3


def test_calls_are_as_large_as_the_gateway_takes_them():
    assert questions.MAX_LOGITS_OF_A_CALL == MAX_NUMBERS
    taken = PredictQuestion.model_json_schema()["properties"]["image_ids"]["maxItems"]
    assert taken == questions.MAX_IMAGES_OF_A_CALL


def test_the_newest_sae_that_is_ready_is_chosen():
    def sae(name, state):
        return {**to_json(SAE), "id": f"sae_{name}", "name": name, "state": state}

    saes = [sae("new", "loading"), sae("broken", "failed"), sae("good", "ready"), sae("old", "ready")]

    def chosen(saes, **kwargs):
        with Client(URL, TOKEN, transport=httpx.MockTransport(Gateway(saes=saes))) as client:
            return client.saes.choose(**kwargs).name

    assert chosen(saes) == "good"
    assert chosen(saes[:2]) == "new"
    assert chosen(saes, sae="old") == "old"
    with pytest.raises(errors.UnknownSae, match="'good', 'new'"):
        chosen(saes, sae="mine")
    with pytest.raises(errors.UnknownSae, match="no SAE is registered"):
        chosen([])
    with pytest.raises(errors.UnknownSae, match="'broken'"):
        chosen([saes[1]])
    with pytest.raises(errors.UnknownModel, match="'demo'"):
        chosen(saes, model="other")


def test_an_id_is_looked_up_and_a_path_is_uploaded(client, gateway, tmp_path):
    client.explain(IMAGE.id, NAMES)
    assert ("GET", f"images/{IMAGE.id}") in [a[:2] for a in gateway.asked]
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    client.explain(str(path), NAMES)
    assert ("POST", "images") in [a[:2] for a in gateway.asked]


def test_mistakes_are_named_before_anything_is_sent(client, gateway):
    mistakes = [
        (errors.EmptyPrompts, lambda: client.explain(IMAGE)),
        (errors.InvalidRequest, lambda: client.explain(IMAGE, "dog")),
        (errors.InvalidPrompt, lambda: client.explain(IMAGE, ["dog", "dog"])),
        (errors.InvalidRequest, lambda: client.predict([], NAMES)),
        (errors.InvalidRequest, lambda: client.sweep(IMAGE, 7, NAMES, gains=[float("nan")])),
        (errors.InvalidTarget, lambda: client.suggest(WHY, "unicorn")),
        (errors.UnreadableImage, lambda: client.images.upload("nowhere.png")),
    ]
    for kind, ask in mistakes:
        with pytest.raises(kind):
            ask()
    assert gateway.asked == []
