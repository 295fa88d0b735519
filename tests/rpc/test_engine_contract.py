"""What every `InferenceEngine` promises, asked of the one in this process and of the one behind gRPC."""

import io
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image
from tests.inference.running import MODEL, SAE, Running
from tests.rpc.values import same

from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
from fulcrum.demo.world import render, sample_scene, with_sticker
from fulcrum.domain.codec import to_json
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import LatentCondition, Scale, Scope, SetTo
from fulcrum.domain.engine import InferenceEngine
from fulcrum.domain.errors import (
    EmptyPrompts,
    InvalidEdit,
    InvalidInput,
    InvalidSettings,
    InvalidTarget,
    LatentOutOfRange,
    SaeDoesNotFit,
    UnknownModel,
    UnknownSae,
    UnreadableImage,
)
from fulcrum.domain.models import ModelInfo, ModelRef
from fulcrum.domain.tasks import ClassSet, LogitTarget, LogProbTarget, MarginTarget
from fulcrum.engine.local import LocalEngine
from fulcrum.rpc.client import RemoteEngine

TASK = demo_task()
GAINS = (0.0, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Subject:
    """An engine and the names under which it knows the demo's model and SAE."""

    engine: InferenceEngine
    model: ModelRef
    sae: str

    def info(self) -> ModelInfo:
        return self.engine.load_model(self.model)

    def correction(self, *edits, **options):
        info = self.engine.load_sae(self.sae, self.model)
        return Correction(
            self.info().weights_sha256, info.weights_sha256, str(info.hook_point), edits, **options
        )

    def attribute(self, image, **options):
        return self.engine.attribute(self.model, self.sae, image, TASK, **options)

    def steer(self, image, correction, **options):
        return self.engine.steer(self.model, self.sae, image, correction, TASK, **options)


@pytest.fixture(scope="module")
def local():
    return Subject(LocalEngine(), demo_model(), demo_sae())


@pytest.fixture(scope="module")
def service():
    with Running() as running:
        yield running


@pytest.fixture(scope="module")
def remote(service):
    with RemoteEngine(service.address, user="usr_contract") as engine:
        yield Subject(engine, MODEL, SAE)


@pytest.fixture(scope="module")
def deterministic(service):
    with RemoteEngine(service.address, deterministic=True) as engine:
        yield Subject(engine, MODEL, SAE)


@pytest.fixture(params=["local", "remote", "deterministic"])
def subject(request):
    return request.getfixturevalue(request.param)


def picture(seed, word=None):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, TASK.names[seed % len(TASK.names)])
    if word is not None:
        scene = with_sticker(rng, scene, word)
    file = io.BytesIO()
    Image.fromarray(render(scene).image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def images():
    return [picture(seed) for seed in range(5)]


@pytest.fixture(scope="module")
def attacked(local):
    """An image whose sticker the model believes, and the class of its object."""
    for seed in range(60):
        label, word = TASK.names[seed % len(TASK.names)], TASK.names[(seed + 1) % len(TASK.names)]
        data = picture(seed, word)
        if local.engine.predict(local.model, [data], TASK)[0].top == word:
            return data, label
    raise AssertionError("the demo model is fooled by no sticker")


def test_a_model_is_described_under_the_name_it_was_asked_for(subject):
    info = subject.info()
    assert info.ref == subject.model
    assert (info.image_size, info.device) == (96, "cpu")
    assert len(info.weights_sha256) == len(info.preprocess_sha256) == 64
    sae = subject.engine.load_sae(subject.sae, subject.model)
    assert sae.d_in == info.d_model
    assert str(sae.hook_point) in info.hook_points


def test_embeddings_have_unit_norm_and_the_order_of_what_was_asked(subject, images):
    together = subject.engine.encode_images(subject.model, images)
    assert together.shape == (5, subject.info().d_embed)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    one = subject.engine.encode_images(subject.model, images[3:4])
    assert together[3] == pytest.approx(one[0], abs=1e-5)
    texts = subject.engine.encode_texts(subject.model, TASK.names[:3])
    assert texts.shape == (3, subject.info().d_embed)
    assert np.linalg.norm(texts, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_latents_are_rows_of_tokens(subject, images):
    latents = subject.engine.encode_latents(subject.model, subject.sae, images[0])
    assert len(latents.offsets) == subject.info().n_tokens + 1
    assert latents.offsets[0] == 0
    assert latents.offsets[-1] == len(latents.latents) == len(latents.values) > 0
    assert (np.diff(latents.offsets) >= 0).all()
    assert (latents.values > 0).all()
    assert 0 <= latents.latents.min() <= latents.latents.max() < latents.d_sae


def test_a_prediction_is_softmax_over_the_logits_of_the_class_set(subject, images):
    predictions = subject.engine.predict(subject.model, images, TASK)
    assert [p.class_names for p in predictions] == [TASK.names] * 5
    for p in predictions:
        exp = np.exp(np.float64(p.logits) - p.logits.max())
        assert p.probs == pytest.approx(exp / exp.sum(), abs=1e-6)


@pytest.mark.parametrize("method", ["act_x_grad", "integrated_gradients", "ablation"])
def test_an_attribution_explains_the_margin_of_the_prediction(subject, attacked, method):
    found = subject.attribute(attacked[0], method=method, n_latents=4, n_steps=8)
    assert found.method == method
    assert found.target == MarginTarget(found.prediction.top, found.prediction.runner_up)
    assert found.target_value == pytest.approx(found.prediction.margin, abs=1e-4)
    assert len(found.latents) == 4
    scores = [abs(row.score) for row in found.latents]
    assert scores == sorted(scores, reverse=True)
    assert (found.rank_agreement is None) == (method == "ablation")
    assert (found.completeness_residual is None) == (method != "integrated_gradients")
    assert all(row.per_token is None for row in found.latents)


def test_scores_of_tokens_sum_to_the_latents_score(subject, attacked):
    found = subject.attribute(attacked[0], per_token=True, n_latents=3, target=LogitTarget(attacked[1]))
    assert found.target == LogitTarget(attacked[1])
    for row in found.latents:
        assert len(row.per_token) == subject.info().n_tokens
        assert row.per_token.sum() == pytest.approx(row.score, abs=1e-4)


def test_the_measured_effect_is_what_steering_the_latent_away_does(subject, attacked):
    found = subject.attribute(attacked[0], n_latents=1)
    effect = subject.steer(
        attacked[0],
        subject.correction(Scale(found.latents[0].latent, 0.0)),
        target=found.target,
        n_controls=0,
    )
    change = effect.target_before - effect.target_after
    assert change == pytest.approx(found.latents[0].measured_effect, abs=2e-4)


def test_the_identity_changes_no_bit(subject, attacked):
    effect = subject.steer(attacked[0], subject.correction(), n_controls=0)
    assert not effect.diagnostics.changed
    assert same(effect.before, effect.after)
    assert effect.controls == ()


def test_controls_are_drawn_again_from_the_same_seed(subject, attacked):
    latent = subject.attribute(attacked[0], n_latents=1).latents[0].latent
    correction = subject.correction(Scale(latent, 0.0), scope=Scope("patches"))
    first = subject.steer(attacked[0], correction, n_controls=8, seed=3)
    again = subject.steer(attacked[0], correction, n_controls=8, seed=3)
    other = subject.steer(attacked[0], correction, n_controls=8, seed=4)
    assert {c.kind for c in first.controls} == {"random_directions", "matched_latents"}
    for a, b in zip(first.controls, again.controls, strict=True):
        assert len(a.target_changes) == 8
        assert a.target_changes == pytest.approx(b.target_changes, abs=1e-4)
    # The latents that match best are the same few under every seed; directions are drawn anew.
    a, c = (next(k for k in e.controls if k.kind == "random_directions") for e in (first, other))
    assert a.target_changes != pytest.approx(c.target_changes, abs=1e-4)


def test_a_condition_that_does_not_hold_leaves_the_image_alone(subject, attacked):
    latent = subject.attribute(attacked[0], n_latents=1).latents[0].latent
    edit, never = SetTo(latent, 9.0), LatentCondition(latent, ">=", 1e6)
    effect = subject.steer(attacked[0], subject.correction(edit, conditions=(never,)), n_controls=0)
    assert not effect.diagnostics.condition_met
    assert same(effect.before, effect.after)
    assert subject.steer(attacked[0], subject.correction(edit), n_controls=0).diagnostics.changed


def test_a_sweep_passes_through_the_unedited_answer(subject, attacked):
    found = subject.attribute(attacked[0], n_latents=2)
    latents = [row.latent for row in found.latents]
    curve = subject.engine.sweep(subject.model, subject.sae, attacked[0], latents, GAINS[::-1], TASK)
    assert curve.gains.tolist() == list(GAINS)
    assert curve.logits.shape == (5, len(TASK.names))
    assert curve.target == found.target
    assert curve.logits[2] == pytest.approx(found.prediction.logits, abs=1e-4)
    steered = subject.steer(attacked[0], subject.correction(*(Scale(n, 0.0) for n in latents)), n_controls=0)
    assert curve.logits[0] == pytest.approx(steered.after.logits, abs=1e-4)


def test_a_suggestion_does_what_it_says(subject, attacked):
    data, label = attacked
    found = list(subject.engine.suggest(subject.model, subject.sae, data, TASK, label, max_latents=4))
    assert found
    assert any(s.flips for s in found)
    for suggestion in [s for s in found if s.flips][:2]:
        assert suggestion.margin_before < 0 < suggestion.margin_after
        effect = subject.steer(data, subject.correction(*suggestion.edits), n_controls=0)
        assert effect.after.top == label


def test_predictions_with_a_correction_are_those_of_steering_one_by_one(subject, images, attacked):
    latent = subject.attribute(attacked[0], n_latents=1).latents[0].latent
    correction = subject.correction(Scale(latent, 0.0))
    pictures = [*images, attacked[0]]
    pairs = subject.engine.predict_steered(subject.model, subject.sae, pictures, correction, TASK)
    plain = subject.engine.predict(subject.model, pictures, TASK)
    for data, pair, before in zip(pictures, pairs, plain, strict=True):
        assert pair.before.logits == pytest.approx(before.logits, abs=1e-4)
        effect = subject.steer(data, correction, n_controls=0)
        assert pair.after.logits == pytest.approx(effect.after.logits, abs=1e-4)
        assert pair.changed == effect.diagnostics.changed


NO_IMAGE = b"GIF89a is not one that we read"
BAD = {
    "an image that is none": (UnreadableImage, lambda s, d: s.attribute(NO_IMAGE)),
    "an empty image": (UnreadableImage, lambda s, d: s.engine.predict(s.model, [d, b""], TASK)),
    "no image": (InvalidSettings, lambda s, d: s.engine.encode_images(s.model, [])),
    "no image to predict": (InvalidInput, lambda s, d: s.engine.predict(s.model, [], TASK)),
    "no text": (EmptyPrompts, lambda s, d: s.engine.encode_texts(s.model, [])),
    "an unknown model": (UnknownModel, lambda s, d: s.engine.load_model(ModelRef("ViT-Nothing", "openai"))),
    "an unknown SAE": (UnknownSae, lambda s, d: s.engine.load_sae(f"{s.sae}-nothing", s.model)),
    "a target that is not in the task": (
        InvalidTarget,
        lambda s, d: s.attribute(d, target=LogProbTarget("hologram")),
    ),
    "no latents wanted": (InvalidSettings, lambda s, d: s.attribute(d, n_latents=0)),
    "a latent that does not exist": (
        LatentOutOfRange,
        lambda s, d: s.steer(d, s.correction(Scale(10**6, 0.0))),
    ),
    "a correction of another model": (
        SaeDoesNotFit,
        lambda s, d: s.steer(d, replace(s.correction(), model_sha256="0" * 64)),
    ),
    "a patch that does not exist": (
        InvalidEdit,
        lambda s, d: s.steer(d, s.correction(Scale(1, 0.0), scope=Scope("patch_list", (10**6,)))),
    ),
    "no gains": (InvalidSettings, lambda s, d: s.engine.sweep(s.model, s.sae, d, [1], [], TASK)),
    "a gain that is no number": (
        InvalidInput,
        lambda s, d: s.engine.sweep(s.model, s.sae, d, [1], [float("nan")], TASK),
    ),
    "a suggestion among one class": (
        EmptyPrompts,
        lambda s, d: list(s.engine.suggest(s.model, s.sae, d, ClassSet(("cat",)), "cat")),
    ),
    "a suggestion of an unknown class": (
        InvalidTarget,
        lambda s, d: list(s.engine.suggest(s.model, s.sae, d, TASK, "hologram")),
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_mistake_is_the_same_error_everywhere_and_the_next_question_is_answered(subject, attacked, what):
    expected, ask = BAD[what]
    with pytest.raises(expected):
        ask(subject, attacked[0])
    assert subject.engine.predict(subject.model, [attacked[0]], TASK)[0].class_names == TASK.names


def numbers(value):
    """All numbers of a result, in order, and everything else as it is."""
    found, rest = [], []

    def walk(part):
        match part:
            case dict():
                for key in sorted(part):
                    walk(part[key])
            case list():
                for item in part:
                    walk(item)
            case float():
                found.append(part)
            case _:
                rest.append(part)

    walk(to_json(value))
    return np.array(found), rest


def test_both_engines_give_the_same_answers(local, remote, attacked):
    def answers(s):
        latent = s.attribute(attacked[0], n_latents=1).latents[0].latent
        correction = s.correction(Scale(latent, 0.0))
        yield s.engine.predict(s.model, [attacked[0]], TASK)
        yield s.engine.encode_latents(s.model, s.sae, attacked[0])
        yield s.attribute(attacked[0], n_latents=5, per_token=True)
        yield s.steer(attacked[0], correction, n_controls=4)
        yield s.engine.sweep(s.model, s.sae, attacked[0], [latent], GAINS, TASK)
        yield s.engine.predict_steered(s.model, s.sae, [attacked[0]], correction, TASK)
        yield list(s.engine.suggest(s.model, s.sae, attacked[0], TASK, attacked[1], max_latents=3))

    for mine, theirs in zip(answers(local), answers(remote), strict=True):
        assert type(mine) is type(theirs)
        (mine, mine_rest), (theirs, theirs_rest) = numbers(mine), numbers(theirs)
        assert mine_rest == theirs_rest
        assert mine == pytest.approx(theirs, rel=1e-3, abs=2e-3)


def test_deterministic_answers_repeat_in_every_bit(deterministic, attacked):
    latent = deterministic.attribute(attacked[0], n_latents=1).latents[0].latent
    correction = deterministic.correction(Scale(latent, 0.0))
    first, again = (deterministic.steer(attacked[0], correction, n_controls=4) for _ in range(2))
    assert same(first, again)
