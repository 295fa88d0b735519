import dataclasses

import pytest
import torch
from tests.science.tiny import TinyTower, tiny_images, tiny_sae
from torch import Tensor

from fulcrum.domain.edits import Scale, Scope, SetTo
from fulcrum.domain.errors import ComputationFailed
from fulcrum.science.steering.edits import EditPlan, apply_edits
from fulcrum.science.steering.forward import steered_embeddings
from fulcrum.science.vision.split import HookState

PLANS = [EditPlan((Scale(j, 0.0), SetTo((j + 1) % 20, 1.0)), Scope()) for j in range(7)] + [EditPlan()] * 2


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_after_is_the_suffix_of_the_edited_activations_for_every_batch_size(batch_size: int) -> None:
    tower, sae = TinyTower(), tiny_sae()
    state = tower.prefix(tiny_images(3, tower))
    rows = [0, 1, 2, 2, 1, 0, 0, 1, 2]
    steered = steered_embeddings(tower, state, sae, PLANS, rows, batch_size=batch_size)
    edited = apply_edits(tower, sae, state.x, PLANS, rows)
    torch.testing.assert_close(steered.before, tower.suffix(state).detach())
    torch.testing.assert_close(steered.after, tower.suffix(state.with_x(edited.x)).detach())
    assert steered.changed.tolist() == [True] * 7 + [False] * 2


def test_the_suffix_runs_only_on_images_and_on_what_a_plan_changed() -> None:
    tower, sae = TinyTower(), tiny_sae()
    state = tower.prefix(tiny_images(3, tower))
    tower.n_suffix_rows = tower.n_suffix_calls = 0
    steered = steered_embeddings(tower, state, sae, PLANS, [0] * 9)
    assert (tower.n_suffix_rows, tower.n_suffix_calls) == (3 + 7, 1)
    assert torch.equal(steered.after[7:], steered.before[[0, 0]])


def test_known_unedited_embeddings_are_not_computed_again() -> None:
    tower, sae = TinyTower(), tiny_sae()
    state = tower.prefix(tiny_images(3, tower))
    before = tower.suffix(state).detach()
    tower.n_suffix_rows = 0
    steered = steered_embeddings(tower, state, sae, PLANS[:3], before=before)
    assert tower.n_suffix_rows == 3
    assert steered.before is before


def test_batches_are_full_when_few_plans_of_each_piece_change_anything() -> None:
    tower, sae = TinyTower(), tiny_sae()
    state = tower.prefix(tiny_images(1, tower))
    tower.n_suffix_calls = 0
    plans = ([EditPlan()] * 3 + [EditPlan((SetTo(1, 2.0),))]) * 8
    steered_embeddings(tower, state, sae, plans, batch_size=4)
    assert tower.n_suffix_calls == 3  # 1 unedited and 8 changed rows


def test_the_residual_stream_that_an_mlp_output_is_added_to_goes_with_its_row() -> None:
    class AtMlpOut(TinyTower):
        def suffix(self, state: HookState) -> Tensor:
            assert state.carry is not None
            return super().suffix(HookState(state.x + state.carry))

    tower, sae = AtMlpOut(), tiny_sae()
    images = tiny_images(3, tower)
    state = dataclasses.replace(tower.prefix(images), carry=0.5 * images)
    rows = [2, 0, 2]
    steered = steered_embeddings(tower, state, sae, PLANS[:3], rows, batch_size=2)
    for i, row in enumerate(rows):
        one = state.rows(slice(row, row + 1))
        edited = apply_edits(tower, sae, one.x, [PLANS[i]])
        torch.testing.assert_close(steered.after[i], tower.suffix(one.with_x(edited.x))[0].detach())


def test_an_embedding_that_is_not_finite_is_an_error_and_no_answer() -> None:
    tower, sae = TinyTower(), tiny_sae()
    state = tower.prefix(tiny_images(1, tower))
    state.x[0, 0, 0] = torch.nan
    with pytest.raises(ComputationFailed, match="not finite"):
        steered_embeddings(tower, state, sae, [EditPlan((Scale(0, 0.0),))])


def test_all_latents_of_a_sae_without_bias_and_error_can_be_ablated_without_nan() -> None:
    """Trap 11: the activations become exactly zero."""
    tower = TinyTower(block=1, last_norm=False)
    sae = tiny_sae(normalised=False, bias=0.0)
    with torch.no_grad():
        sae.b_dec.zero_()
    state = tower.prefix(tiny_images(1, tower))
    plan = EditPlan(tuple(Scale(j, 0.0) for j in range(20)), drop_error=True)
    edited = apply_edits(tower, sae, state.x, [plan])
    torch.testing.assert_close(edited.x, torch.zeros_like(edited.x))
    assert torch.isfinite(steered_embeddings(tower, state, sae, [plan]).after).all()
