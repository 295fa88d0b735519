import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
from fulcrum.domain.edits import LatentCondition, Scale, Scope, SetTo
from fulcrum.domain.errors import (
    EmptyPrompts,
    InvalidEdit,
    InvalidSettings,
    InvalidTarget,
    LatentOutOfRange,
    OutOfMemory,
    SaeDoesNotFit,
    UnknownSae,
    UnreadableImage,
)
from fulcrum.domain.tasks import ClassSet, LogProbTarget, MarginTarget
from fulcrum.engine.local import LocalEngine

MODEL, SAE, TASK = demo_model(), demo_sae(), demo_task()


def suppress(engine, *latents, **options):
    return engine.correction(MODEL, SAE, [Scale(n, 0.0) for n in latents], task=TASK, **options)


@pytest.mark.parametrize("method", ["act_x_grad", "integrated_gradients", "ablation"])
def test_the_measured_effect_of_an_attribution_is_what_steering_the_latent_away_does(
    engine, attacked, method
):
    data, _ = attacked
    found = engine.attribute(MODEL, SAE, data, TASK, method=method, n_latents=5)
    target = found.target
    assert isinstance(target, MarginTarget)
    for row in found.latents[:3]:
        effect = engine.steer(MODEL, SAE, data, suppress(engine, row.latent), TASK, target, n_controls=0)
        assert effect.target_before - effect.target_after == pytest.approx(row.measured_effect, abs=2e-4)
    if method == "ablation":
        assert [r.score for r in found.latents] == pytest.approx(
            [r.measured_effect for r in found.latents], abs=2e-4
        )


def test_integrated_gradients_are_complete_and_say_how_nearly(engine, attacked):
    found = engine.attribute(MODEL, SAE, attacked[0], TASK, method="integrated_gradients", n_steps=64)
    assert found.completeness_residual is not None
    assert abs(found.completeness_residual) < 0.05 * abs(found.target_value)


def test_per_token_scores_sum_to_the_latents_score(engine, attacked):
    found = engine.attribute(MODEL, SAE, attacked[0], TASK, per_token=True, n_latents=4)
    for row in found.latents:
        assert row.per_token.sum() == pytest.approx(row.score, abs=1e-4)


def test_before_is_the_prediction_of_the_untouched_model(engine, attacked):
    data, _ = attacked
    predicted = engine.predict(MODEL, [data], TASK)[0]
    effect = engine.steer(MODEL, SAE, data, suppress(engine, 3), TASK, n_controls=0)
    np.testing.assert_allclose(effect.before.logits, predicted.logits, atol=1e-4)


def test_the_identity_edit_changes_not_a_bit(engine, attacked):
    latents = engine.attribute(MODEL, SAE, attacked[0], TASK, n_latents=3).latents
    same = engine.correction(MODEL, SAE, [Scale(r.latent, 1.0) for r in latents], task=TASK)
    effect = engine.steer(MODEL, SAE, attacked[0], same, TASK)
    assert not effect.diagnostics.changed
    assert (effect.before.logits == effect.after.logits).all()


def test_all_questions_about_one_image_share_one_prefix_and_its_latents(attacked, monkeypatch):
    engine = LocalEngine()
    data, label = attacked
    sae = engine.residency.steerable(MODEL, SAE).sae
    encoded = []
    encode = sae.encode_sparse
    monkeypatch.setattr(sae, "encode_sparse", lambda x: encoded.append(x) or encode(x))
    engine.attribute(MODEL, SAE, data, TASK)
    engine.steer(MODEL, SAE, data, suppress(engine, 3), TASK)
    engine.sweep(MODEL, SAE, data, [3], [0.0, 0.5, 1.0], TASK)
    list(engine.suggest(MODEL, SAE, data, TASK, label))
    assert engine.prefix_counts.misses == 1
    assert engine.prefix_counts.hits >= 3
    assert len(encoded) == 1


def test_who_writes_into_an_answer_writes_into_no_cache(attacked):
    engine = LocalEngine()
    known = [row.score for row in engine.attribute(MODEL, SAE, attacked[0], TASK).latents]
    mine = engine.encode_latents(MODEL, SAE, attacked[0])
    for array in (mine.values, mine.latents, mine.offsets):
        array[:] = 0
    assert [row.score for row in engine.attribute(MODEL, SAE, attacked[0], TASK).latents] == known


def test_memory_that_is_full_while_latents_are_made_is_told_as_such(attacked, monkeypatch):
    engine, (data, label) = LocalEngine(), attacked

    def full(x):
        raise torch.OutOfMemoryError("Tried to allocate 20 GiB")

    monkeypatch.setattr(engine.residency.steerable(MODEL, SAE).sae, "encode_sparse", full)
    for ask in (
        lambda: engine.attribute(MODEL, SAE, data, TASK),
        lambda: engine.steer(MODEL, SAE, data, suppress(engine, 3), TASK),
        lambda: engine.sweep(MODEL, SAE, data, [3], [0.0], TASK),
        lambda: list(engine.suggest(MODEL, SAE, data, TASK, label)),
    ):
        with pytest.raises(OutOfMemory, match="20 GiB"):
            ask()


def test_a_suggestion_does_what_it_says(engine, attacked):
    data, label = attacked
    found = list(engine.suggest(MODEL, SAE, data, TASK, label))
    assert found
    for suggestion in found:
        correction = engine.correction(MODEL, SAE, suggestion.edits, task=TASK)
        effect = engine.steer(MODEL, SAE, data, correction, TASK, n_controls=0)
        assert (effect.after.top == label) == suggestion.flips


def test_a_sweep_agrees_with_single_steers(engine, attacked):
    data, _ = attacked
    latent = engine.attribute(MODEL, SAE, data, TASK, n_latents=1).latents[0].latent
    curve = engine.sweep(MODEL, SAE, data, [latent], [0.0, 0.5, 2.0], TASK)
    for gain, logits in zip(curve.gains, curve.logits, strict=True):
        correction = engine.correction(MODEL, SAE, [Scale(latent, float(gain))], task=TASK)
        after = engine.steer(MODEL, SAE, data, correction, TASK, n_controls=0).after
        np.testing.assert_allclose(after.logits, logits, atol=1e-3)


def test_users_who_steer_differently_at_the_same_moment_get_their_own_answers(engine, attacked):
    data, _ = attacked
    latents = [r.latent for r in engine.attribute(MODEL, SAE, data, TASK, n_latents=4).latents]
    alone = {n: engine.steer(MODEL, SAE, data, suppress(engine, n), TASK, n_controls=0) for n in latents}
    together: dict[int, list] = {n: [] for n in latents}

    def user(latent):
        for _ in range(5):
            effect = engine.steer(MODEL, SAE, data, suppress(engine, latent), TASK, n_controls=0)
            together[latent].append(effect)

    threads = [threading.Thread(target=user, args=(n,)) for n in latents]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for latent, effects in together.items():
        assert len(effects) == 5
        for effect in effects:
            assert (effect.after.logits == alone[latent].after.logits).all()


def test_a_condition_that_does_not_hold_leaves_the_image_alone(engine, attacked):
    latents = engine.attribute(MODEL, SAE, attacked[0], TASK, n_latents=2).latents
    never = LatentCondition(latents[0].latent, ">=", 1e9)
    effect = engine.steer(
        MODEL, SAE, attacked[0], suppress(engine, latents[0].latent, conditions=[never]), TASK
    )
    assert not effect.diagnostics.condition_met
    assert not effect.flipped
    assert not effect.diagnostics.changed


def test_encode_latents_are_those_that_attribution_lists(engine, attacked):
    sparse = engine.encode_latents(MODEL, SAE, attacked[0])
    assert (sparse.values > 0).all()
    found = engine.attribute(MODEL, SAE, attacked[0], TASK, n_latents=3)
    for row in found.latents:
        mine = sparse.values[sparse.latents == row.latent]
        assert mine.max() == pytest.approx(row.max_activation, rel=1e-4)


def test_a_single_class_is_explained_by_its_logit(engine, attacked):
    found = engine.attribute(MODEL, SAE, attacked[0], ClassSet(("boat",)), n_latents=2)
    assert found.target.kind == "logit"
    with pytest.raises(EmptyPrompts, match="two classes"):
        list(engine.suggest(MODEL, SAE, attacked[0], ClassSet(("boat",)), "boat"))


def test_bad_questions_get_an_error_that_names_what_was_wrong(engine, attacked):
    data, _ = attacked
    with pytest.raises(UnreadableImage, match="not a PNG"):
        engine.attribute(MODEL, SAE, b"not an image", TASK)
    with pytest.raises(UnreadableImage, match="truncated"):
        engine.attribute(MODEL, SAE, data[: len(data) // 2], TASK)
    with pytest.raises(LatentOutOfRange, match="999999"):
        engine.steer(MODEL, SAE, data, suppress(engine, 999_999), TASK)
    with pytest.raises(InvalidEdit, match=r"[Pp]atch"):
        engine.steer(MODEL, SAE, data, suppress(engine, 1, scope=Scope("patch_list", (9999,))), TASK)
    with pytest.raises(InvalidTarget, match="unicorn"):
        engine.attribute(MODEL, SAE, data, TASK, LogProbTarget("unicorn"))
    with pytest.raises(InvalidSettings, match="magic"):
        engine.attribute(MODEL, SAE, data, TASK, method="magic")
    with pytest.raises(InvalidSettings, match="n_latents"):
        engine.attribute(MODEL, SAE, data, TASK, n_latents=0)
    with pytest.raises(UnknownSae, match="nowhere"):
        engine.load_sae("/nowhere/at/all", MODEL)
    with pytest.raises(InvalidSettings, match="untrained"):
        engine.load_sae("untrained:topk", MODEL)
    top = engine.predict(MODEL, [data], TASK)[0].top
    with pytest.raises(InvalidTarget, match=top):
        list(engine.suggest(MODEL, SAE, data, TASK, top))


def test_a_correction_for_other_weights_is_refused(engine, attacked):
    correction = replace(suppress(engine, 1), sae_sha256="0" * 64)
    with pytest.raises(SaeDoesNotFit, match="SAE weights"):
        engine.steer(MODEL, SAE, attacked[0], correction, TASK)


def test_a_set_edit_acts_also_where_the_latent_is_silent(engine, attacked):
    sparse = engine.encode_latents(MODEL, SAE, attacked[0])
    silent = next(n for n in range(sparse.d_sae) if n not in set(sparse.latents.tolist()))
    correction = engine.correction(MODEL, SAE, [SetTo(silent, 5.0)], task=TASK)
    effect = engine.steer(MODEL, SAE, attacked[0], correction, TASK, n_controls=0)
    assert effect.diagnostics.changed
    assert effect.diagnostics.fired == (False,)


def test_the_answer_before_runs_once_for_an_image_and_stays_the_same(attacked, monkeypatch):
    engine, (data, _) = LocalEngine(), attacked
    latent = engine.attribute(MODEL, SAE, data, TASK, n_latents=1).latents[0].latent
    correction = suppress(engine, latent)
    first = engine.steer(MODEL, SAE, data, correction, TASK, n_controls=0)
    tower, rows = type(engine.residency.steerable(MODEL, SAE).tower), []
    suffix = tower.suffix
    monkeypatch.setattr(tower, "suffix", lambda self, state: rows.append(len(state.x)) or suffix(self, state))
    again = engine.steer(MODEL, SAE, data, correction, TASK, n_controls=0)
    nothing = engine.steer(MODEL, SAE, data, suppress(engine), TASK, n_controls=0)
    assert rows == [1]
    assert again.before.logits.tolist() == first.before.logits.tolist()
    assert nothing.after.logits.tolist() == first.before.logits.tolist()
    assert LocalEngine().predict(MODEL, [data], TASK)[0].logits == pytest.approx(
        first.before.logits, abs=1e-3
    )
