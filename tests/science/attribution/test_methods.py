"""Each attribution method against its definition, written slowly on dense latents."""

from typing import get_args

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from tests.science.tiny import TinyTower, TopKSae, tiny_head, tiny_images, tiny_sae
from torch import Tensor

from fulcrum.domain.errors import ComputationFailed, EditCannotReachOutput, InvalidSettings
from fulcrum.domain.results import AttributionMethod
from fulcrum.domain.tasks import CosineTarget, LogitTarget, LogProbTarget, MarginTarget
from fulcrum.science.attribution.ablation import ablate_tokens, ablation
from fulcrum.science.attribution.act_x_grad import act_x_grad
from fulcrum.science.attribution.integrated_gradients import integrated_gradients
from fulcrum.science.attribution.methods import METHODS
from fulcrum.science.attribution.scores import Scores
from fulcrum.science.attribution.targets import TargetFunction, target_function
from fulcrum.science.sae.base import Sae
from fulcrum.science.vision.split import HookState

TARGETS = [CosineTarget("a"), LogitTarget("b"), LogProbTarget("c"), MarginTarget("a", "b")]
HEAD = tiny_head()
Y = target_function(HEAD, MarginTarget("a", "b"))


def dense(scores: Scores, n_images: int, d_sae: int = 20) -> Tensor:
    """(n_images, d_sae) with 0 where nothing is listed."""
    out = torch.zeros(n_images, d_sae, dtype=torch.float64)
    out[scores.rows, scores.latents] = scores.values
    return out


def state_of(tower: TinyTower, n: int = 2) -> HookState:
    return tower.prefix(tiny_images(n, tower))


def from_latents(tower: TinyTower, sae: Sae, x: Tensor, y: TargetFunction, z: Tensor) -> Tensor:
    """`y` of activations rebuilt from latents (batch, T, d_sae), with the error of `x` added."""
    error = x - sae.decode(sae.encode(x))
    return y(tower.suffix(HookState(sae.decode(z) + error)))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("kind", [None, TopKSae])
def test_act_x_grad_is_latent_times_gradient_with_respect_to_the_latent(target, block, kind) -> None:
    tower, sae = TinyTower(block), tiny_sae(kind) if kind else tiny_sae()
    state, y = state_of(tower), target_function(HEAD, target)
    found = act_x_grad(tower, state, sae, y)
    z = sae.encode(state.x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(from_latents(tower, sae, state.x.detach(), y, z).sum(), z)
    torch.testing.assert_close(dense(found, 2), (z * gradient).sum(1).detach())
    torch.testing.assert_close(found.target_values, y(tower.suffix(state)).detach())
    for row in range(2):
        latents, _ = found.of_image(row)
        expected = (z * gradient)[row][:, latents].T.detach()
        torch.testing.assert_close(found.per_token(latents, row), expected)


def test_act_x_grad_costs_one_forward_and_one_backward_pass_of_the_suffix() -> None:
    tower, sae = TinyTower(1), tiny_sae()
    state = state_of(tower, 4)
    backwards = []

    def y(embeddings: Tensor) -> Tensor:
        embeddings.register_hook(backwards.append)
        return Y(embeddings)

    tower.n_suffix_calls = tower.n_suffix_rows = 0
    act_x_grad(tower, state, sae, y)
    assert (tower.n_suffix_calls, tower.n_suffix_rows, len(backwards)) == (1, 4, 1)


@pytest.mark.parametrize("target", [CosineTarget("a"), MarginTarget("a", "b")])
def test_at_the_last_block_the_scores_sum_to_minus_error_and_bias_times_gradient(target) -> None:
    """SCIENCE.md 3: y does not depend on the scale of the CLS residual, so <x, dy/dx> = 0."""
    tower, sae = TinyTower(block=2), tiny_sae()
    state, y = state_of(tower, 1), target_function(HEAD, target)
    x = state.x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(y(tower.suffix(HookState(x))).sum(), x)
    assert abs(float((x * gradient).sum().detach())) < 1e-10
    z = sae.encode(x)
    error_and_bias = x - z @ sae.W_dec / sae.norm_scale  # e + b_dec, in the model's units
    expected = -(error_and_bias * gradient).sum()
    found = act_x_grad(tower, state, sae, y)
    assert float(found.values.sum()) == pytest.approx(expected.item(), rel=1e-9)
    assert abs(expected.item()) > 1e-3


@pytest.mark.parametrize("block", [0, 1, 2])
def test_integrated_gradients_equal_captums_on_the_latents(block) -> None:
    tower, sae = TinyTower(block), tiny_sae()
    state = state_of(tower, 2)
    n_steps = 8
    found = integrated_gradients(tower, state, sae, Y, n_steps=n_steps, batch_size=3)
    for row in range(2):
        x = state.x[row : row + 1].detach()
        z = sae.encode(x).detach()
        error = (x - sae.decode(z)).detach()

        def forward(latents: Tensor, error: Tensor = error) -> Tensor:
            return Y(tower.suffix(HookState(sae.decode(latents) + error)))

        theirs = IntegratedGradients(forward).attribute(z, n_steps=n_steps, method="gausslegendre")
        # captum takes n_steps nodes of the same rule; its baseline is z = 0 with error and b_dec in place.
        torch.testing.assert_close(dense(found, 2)[row], theirs[0].sum(0).detach(), rtol=1e-6, atol=1e-8)
        latents, _ = found.of_image(row)
        torch.testing.assert_close(
            found.per_token(latents, row), theirs[0][:, latents].T.detach(), rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("block", [0, 2])
def test_integrated_gradients_are_complete_and_say_by_how_much_they_are_not(target, block) -> None:
    tower, sae = TinyTower(block), tiny_sae()
    state, y = state_of(tower), target_function(HEAD, target)
    z = sae.encode(state.x)
    # At the last block only CLS reaches the output, and only its latents are moved; elsewhere all are.
    baseline = state.x - z @ sae.W_dec / sae.norm_scale
    difference = (y(tower.suffix(state)) - y(tower.suffix(HookState(baseline)))).detach()
    for n_steps, tolerance in ((2, None), (128, 1e-4)):
        found = integrated_gradients(tower, state, sae, y, n_steps=n_steps)
        assert found.completeness_residuals is not None
        torch.testing.assert_close(found.completeness_residuals, difference - dense(found, 2).sum(1))
        if tolerance is not None:
            assert found.completeness_residuals.abs().max() < tolerance * max(
                1.0, float(difference.abs().max())
            )
    assert integrated_gradients(tower, state, sae, y, n_steps=2).completeness_residuals.abs().max() > 1e-3


def test_integrated_gradients_are_not_activation_times_gradient_and_one_midpoint_step_is_the_midpoint() -> (
    None
):
    """Trap 5: what is sold as integrated gradients is often the gradient at x."""
    tower, sae = TinyTower(0), tiny_sae()
    state = state_of(tower, 1)
    ig = dense(integrated_gradients(tower, state, sae, Y, n_steps=64), 1)
    axg = dense(act_x_grad(tower, state, sae, Y), 1)
    assert (ig - axg).abs().max() > 0.1 * axg.abs().max()
    z = sae.encode(state.x).detach()
    half = (0.5 * z).requires_grad_()
    error = (state.x - sae.decode(z)).detach()
    (gradient,) = torch.autograd.grad(Y(tower.suffix(HookState(sae.decode(half) + error))).sum(), half)
    one = dense(integrated_gradients(tower, state, sae, Y, n_steps=1), 1)
    torch.testing.assert_close(one, (z * gradient).sum(1).detach())


def test_integrated_gradients_keep_the_error_in_the_path_so_the_last_block_does_not_degenerate() -> None:
    """Trap 5: from x(0) = 0 along x(a) = a x, y would be constant and all scores would sum to 0."""
    tower, sae = TinyTower(block=2), tiny_sae()
    state = state_of(tower, 1)
    found = integrated_gradients(tower, state, sae, Y, n_steps=64)
    assert abs(float(found.values.sum())) > 0.1


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("block", [0, 2])
def test_ablation_is_the_directly_patched_forward_pass(batch_size, block) -> None:
    tower, sae = TinyTower(block), tiny_sae()
    state = state_of(tower)
    found = ablation(tower, state, sae, Y, batch_size=batch_size)
    z = sae.encode(state.x).detach()
    y = Y(tower.suffix(state)).detach()
    torch.testing.assert_close(found.target_values, y)
    listed = set(zip(found.rows.tolist(), found.latents.tolist(), strict=True))
    for row in range(2):
        for latent in range(20):
            patched = state.x[row].detach() - z[row, :, latent, None] * sae.W_dec[latent].detach() / 1.7
            effect = float(y[row] - Y(tower.suffix(HookState(patched[None])))[0].detach())
            if (row, latent) in listed:
                assert float(dense(found, 2)[row, latent]) == pytest.approx(effect, abs=1e-9)
            else:
                assert effect == pytest.approx(0, abs=1e-12)


def test_ablation_of_chosen_latents_runs_only_these() -> None:
    tower, sae = TinyTower(0), tiny_sae()
    state = state_of(tower)
    everything = dense(ablation(tower, state, sae, Y), 2)
    tower.n_suffix_rows = 0
    some = ablation(tower, state, sae, Y, latents=torch.tensor([8, 3]))
    assert tower.n_suffix_rows == 2 + 4
    assert set(some.latents.tolist()) == {3, 8}
    torch.testing.assert_close(dense(some, 2)[:, [3, 8]], everything[:, [3, 8]])


def test_ablation_token_by_token_is_the_patched_forward_pass_of_that_token() -> None:
    tower, sae = TinyTower(1), tiny_sae()
    state = state_of(tower, 1)
    latents = torch.tensor([8, 0, 3])
    found = ablate_tokens(tower, state, sae, Y, latents, batch_size=4)
    z = sae.encode(state.x)[0].detach()
    y = Y(tower.suffix(state)).detach()
    for i, latent in enumerate(latents.tolist()):
        for token in range(tower.n_tokens):
            patched = state.x.detach().clone()
            patched[0, token] -= z[token, latent] * sae.W_dec[latent].detach() / 1.7
            effect = float((y - Y(tower.suffix(HookState(patched)))).detach())
            assert float(found[i, token]) == pytest.approx(effect, abs=1e-9)


def test_on_a_linear_model_all_methods_agree() -> None:
    class Linear(TinyTower):
        def suffix(self, state: HookState) -> Tensor:
            return state.x.mean(1) @ self.project

    tower, sae = Linear(), tiny_sae()
    state = state_of(tower)

    def y(embeddings: Tensor) -> Tensor:
        return embeddings[:, 0] - 2 * embeddings[:, 1]

    results = [dense(method(tower, state, sae, y), 2) for method in METHODS.values()]
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])


@pytest.mark.parametrize("method", METHODS.values())
def test_images_of_a_batch_do_not_see_each_other(method) -> None:
    tower, sae = TinyTower(0), tiny_sae()
    state = state_of(tower, 3)
    together = method(tower, state, sae, Y)
    for row in range(3):
        alone = method(tower, state.rows(slice(row, row + 1)), sae, Y)
        latents, values = alone.of_image(0)
        batch_latents, batch_values = together.of_image(row)
        assert torch.equal(latents, batch_latents)
        torch.testing.assert_close(values, batch_values)


@pytest.mark.parametrize("method", METHODS.values())
def test_latents_are_listed_by_size_of_score_and_only_where_they_fire(method) -> None:
    tower, sae = TinyTower(0), tiny_sae(bias=-1.0)
    state = state_of(tower, 1)
    latents, values = method(tower, state, sae, Y).of_image(0)
    assert set(latents.tolist()) == set((sae.encode(state.x)[0].amax(0) > 0).nonzero().flatten().tolist())
    assert (values.abs().diff() <= 0).all()


@pytest.mark.parametrize("method", METHODS.values())
def test_at_the_last_block_of_a_cls_pooled_tower_patches_carry_nothing_and_are_refused_alone(method) -> None:
    """Trap 4."""
    tower, sae = TinyTower(block=2), tiny_sae(bias=-1.0)
    state = state_of(tower, 1)
    z = sae.encode(state.x)[0]
    on_patches_only = set(((z.amax(0) > 0) & (z[0] == 0)).nonzero().flatten().tolist())
    assert on_patches_only
    found = method(tower, state, sae, Y)
    assert not on_patches_only & set(found.latents.tolist())
    assert (found.active.tokens == 0).all()
    patches = torch.arange(tower.n_tokens) > 0
    with pytest.raises(EditCannotReachOutput, match="every score would be 0"):
        method(tower, state, sae, Y, tokens=patches)


@pytest.mark.parametrize("method", METHODS.values())
def test_only_the_tokens_asked_for_are_attributed(method) -> None:
    tower, sae = TinyTower(0), tiny_sae()
    state = state_of(tower, 1)
    tokens = torch.zeros(tower.n_tokens, dtype=torch.bool)
    tokens[[2, 5]] = True
    found = method(tower, state, sae, Y, tokens=tokens)
    assert set(found.active.tokens.tolist()) == {2, 5}
    if method is act_x_grad:
        latents, values = found.of_image(0)
        everywhere = act_x_grad(tower, state, sae, Y).per_token(latents)
        torch.testing.assert_close(values, everywhere[:, [2, 5]].sum(1))


@pytest.mark.parametrize("method", METHODS.values())
def test_known_sparse_latents_are_taken_as_they_are(method) -> None:
    tower, sae = TinyTower(0), tiny_sae()
    state = state_of(tower)
    with torch.no_grad():
        sparse = sae.encode_sparse(state.x.flatten(0, 1))
    expected = method(tower, state, sae, Y)
    sae.encode_sparse = None  # type: ignore[method-assign, assignment]  # must not be asked again
    torch.testing.assert_close(method(tower, state, sae, Y, sparse=sparse).values, expected.values)


@pytest.mark.parametrize("method", METHODS.values())
def test_activations_of_inference_mode_and_no_grad_can_be_attributed_and_weights_get_no_gradient(
    method,
) -> None:
    tower, sae = TinyTower(0), tiny_sae()
    with torch.inference_mode():
        state = state_of(tower)
    with torch.no_grad():
        found = method(tower, state, sae, Y)
    torch.testing.assert_close(found.values, method(tower, state_of(tower), sae, Y).values)
    assert all(p.grad is None for p in [*tower.parameters(), *sae.parameters()])


@pytest.mark.parametrize("method", METHODS.values())
def test_an_image_in_which_nothing_fires_has_no_scores_and_still_a_target(method) -> None:
    tower, sae = TinyTower(0), tiny_sae(bias=-1e6)
    state = state_of(tower)
    found = method(tower, state, sae, Y)
    assert found.latents.numel() == 0
    torch.testing.assert_close(found.target_values, Y(tower.suffix(state)).detach())


@pytest.mark.parametrize("method", METHODS.values())
def test_activations_that_are_not_finite_are_an_error(method) -> None:
    tower, sae = TinyTower(0), tiny_sae()
    state = state_of(tower, 1)
    state.x.data[0, 0, 0] = torch.nan
    with pytest.raises(ComputationFailed, match="not finite"):
        method(tower, state, sae, Y)


def test_all_latents_of_a_sae_without_bias_and_error_can_be_ablated_without_nan() -> None:
    """Trap 11: the baseline of integrated gradients is then exactly zero."""
    tower = TinyTower(block=2, last_norm=False)
    sae = tiny_sae(normalised=False, bias=0.0)
    x = torch.zeros(1, tower.n_tokens, tower.d_in, dtype=torch.float64)
    with torch.no_grad():
        sae.b_dec.zero_()
        sae.W_enc.copy_(sae.W_dec.T)
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True) ** 2)
        x[:, :] = sae.W_dec[3]
        sae.W_enc[:, torch.arange(20) != 3] = 0
    found = integrated_gradients(tower, HookState(x), sae, Y)
    torch.testing.assert_close(sae.decode(sae.encode(x)), x)
    assert torch.isfinite(found.values).all()
    assert torch.isfinite(ablation(tower, HookState(x), sae, Y).values).all()


def test_integrated_gradients_need_a_step() -> None:
    tower = TinyTower(0)
    with pytest.raises(InvalidSettings, match="n_steps is 0"):
        integrated_gradients(tower, state_of(tower), tiny_sae(), Y, n_steps=0)


def test_per_token_scores_of_ablation_are_not_made_up() -> None:
    tower = TinyTower(0)
    with pytest.raises(ValueError, match="ablate_tokens"):
        ablation(tower, state_of(tower), tiny_sae(), Y).per_token(torch.tensor([0]))


def test_every_method_of_the_domain_has_an_implementation() -> None:
    assert set(METHODS) == set(get_args(AttributionMethod))


def test_scores_do_not_sum_to_the_target() -> None:
    """Trap 13: whoever shows them as a percentage of the prediction shows nonsense."""
    tower = TinyTower(0)
    for method in METHODS.values():
        found = method(tower, state_of(tower), tiny_sae(), Y)
        assert not np.allclose(dense(found, 2).sum(1), found.target_values, rtol=0.05)
