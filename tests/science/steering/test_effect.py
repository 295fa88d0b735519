import numpy as np
import pytest
import torch
from tests.science.tiny import TinyTower, tiny_head, tiny_images, tiny_sae

from fulcrum.domain.edits import MarginCondition, PredictedClassCondition, Scale, SetTo
from fulcrum.domain.errors import InvalidEdit
from fulcrum.domain.results import Effect
from fulcrum.domain.tasks import LogProbTarget
from fulcrum.science.attribution.targets import target_function
from fulcrum.science.steering.edits import EditPlan, apply_edits
from fulcrum.science.steering.effect import effect
from fulcrum.science.vision.split import HookState

TOWER = TinyTower(block=0)
SAE = tiny_sae()
HEAD = tiny_head()
TARGET = LogProbTarget("b")
Y = target_function(HEAD, TARGET)
PLAN = EditPlan((Scale(3, 0.0), SetTo(8, 2.0)))


def image() -> HookState:
    return TOWER.prefix(tiny_images(1, TOWER))


def of(plan: EditPlan, n_controls: int = 8, seed: int = 0) -> Effect:
    return effect(TOWER, image(), SAE, plan, HEAD, TARGET, Y, n_controls=n_controls, seed=seed)


def test_before_after_and_controls_come_from_one_suffix_call_and_agree_with_single_passes() -> None:
    state = image()
    TOWER.n_suffix_calls = TOWER.n_suffix_rows = 0
    found = of(PLAN)
    assert (TOWER.n_suffix_calls, TOWER.n_suffix_rows) == (1, 2 + 8 + 8)
    before = TOWER.suffix(state).detach()
    after = TOWER.suffix(state.with_x(apply_edits(TOWER, SAE, state.x, [PLAN]).x)).detach()
    np.testing.assert_allclose(found.before.logits, HEAD.logits(before)[0].numpy(), rtol=1e-9)
    np.testing.assert_allclose(found.after.logits, HEAD.logits(after)[0].numpy(), rtol=1e-9)
    assert found.target_before == pytest.approx(float(Y(before)))
    assert found.target_after == pytest.approx(float(Y(after)))
    assert found.target == TARGET
    assert found.reconstruction_only is None
    assert found.diagnostics.changed
    assert [c.kind for c in found.controls] == ["random_directions", "matched_latents"]
    assert all(len(c.target_changes) == 8 for c in found.controls)


def test_controls_depend_on_the_seed_and_on_nothing_else() -> None:
    first, again, other = of(PLAN, seed=3), of(PLAN, seed=3), of(PLAN, seed=4)
    for a, b in zip(first.controls, again.controls, strict=True):
        np.testing.assert_array_equal(a.target_changes, b.target_changes)
    assert not np.array_equal(first.controls[0].target_changes, other.controls[0].target_changes)


@pytest.mark.parametrize(
    "plan",
    [EditPlan((Scale(3, 1.0),)), EditPlan(PLAN.edits, conditions=(MarginCondition(-1.0),)), EditPlan()],
)
def test_a_plan_that_changes_nothing_has_the_same_answer_bit_for_bit_and_no_controls(plan: EditPlan) -> None:
    found = of(plan)
    np.testing.assert_array_equal(found.after.logits, found.before.logits)
    assert not found.diagnostics.changed
    assert found.controls == ()
    assert not found.flipped


def test_a_condition_on_the_prediction_is_decided_on_the_unedited_image() -> None:
    top = of(PLAN).before.top
    others = tuple(n for n in HEAD.class_names if n != top)
    met = of(EditPlan(PLAN.edits, conditions=(PredictedClassCondition((top,)),)))
    unmet = of(EditPlan(PLAN.edits, conditions=(PredictedClassCondition(others),)))
    assert met.diagnostics.condition_met
    assert met.diagnostics.changed
    np.testing.assert_allclose(met.after.logits, of(PLAN).after.logits, rtol=1e-12)
    assert not unmet.diagnostics.condition_met


def test_dropping_the_error_comes_with_the_reconstruction_alone_beside_it() -> None:
    found = of(EditPlan(PLAN.edits, drop_error=True))
    state = image()
    alone = HEAD.logits(TOWER.suffix(state.with_x(SAE(state.x)))).detach()[0]
    assert found.reconstruction_only is not None
    np.testing.assert_allclose(found.reconstruction_only.logits, alone.numpy(), rtol=1e-9)
    assert not np.allclose(found.after.logits, found.reconstruction_only.logits)


def test_no_controls_are_drawn_when_none_are_asked_for() -> None:
    assert of(PLAN, n_controls=0).controls == ()


def test_more_than_one_image_is_refused() -> None:
    with pytest.raises(InvalidEdit, match="one image, got 2"):
        effect(TOWER, TOWER.prefix(tiny_images(2, TOWER)), SAE, PLAN, HEAD, TARGET, Y)


def test_activations_made_in_inference_mode_can_be_steered() -> None:
    with torch.inference_mode():
        state = image()
    found = effect(TOWER, state, SAE, PLAN, HEAD, TARGET, Y, n_controls=2)
    np.testing.assert_allclose(found.after.logits, of(PLAN).after.logits, rtol=1e-12)
