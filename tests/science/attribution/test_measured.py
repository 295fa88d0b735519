import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tests.science.tiny import TinyTower, tiny_head, tiny_images, tiny_sae

from fulcrum.domain.tasks import MarginTarget
from fulcrum.science.attribution.ablation import ablation
from fulcrum.science.attribution.act_x_grad import act_x_grad
from fulcrum.science.attribution.measured import measure_latents, rank_agreement
from fulcrum.science.attribution.targets import target_function
from fulcrum.science.vision.split import HookState

TOWER = TinyTower(block=0)
SAE = tiny_sae(bias=-1.0)
Y = target_function(tiny_head(), MarginTarget("a", "b"))


def image() -> HookState:
    return TOWER.prefix(tiny_images(1, TOWER))


def test_single_and_joint_effects_are_those_of_patched_forward_passes_in_one_call() -> None:
    state = image()
    scores = act_x_grad(TOWER, state, SAE, Y)
    latents, values = (part[:6] for part in scores.of_image())
    TOWER.n_suffix_calls = TOWER.n_suffix_rows = 0
    found = measure_latents(TOWER, state, SAE, Y, latents, values)
    assert (TOWER.n_suffix_calls, TOWER.n_suffix_rows) == (1, 1 + 6 + 1)
    all_effects = ablation(TOWER, state, SAE, Y)
    expected = [float(all_effects.values[all_effects.latents == n]) for n in latents]
    np.testing.assert_allclose(found.effects.numpy(), expected, rtol=1e-9)
    z = SAE.encode(state.x)[:, :, latents]
    without = (state.x - z @ SAE.W_dec[latents] / SAE.norm_scale).detach()
    joint = float((Y(TOWER.suffix(state)) - Y(TOWER.suffix(HookState(without)))).detach())
    assert found.joint_effect == pytest.approx(joint)
    assert found.interaction_share == pytest.approx(1 - sum(expected) / joint)
    assert found.rank_agreement == pytest.approx(spearmanr(values.numpy(), expected).statistic)
    assert found.target_value == pytest.approx(float(Y(TOWER.suffix(state)).detach()))


def test_the_order_of_the_latents_is_kept_and_batches_do_not_matter() -> None:
    latents = torch.tensor([8, 3, 10, 4])
    whole = measure_latents(TOWER, image(), SAE, Y, latents)
    pieces = measure_latents(TOWER, image(), SAE, Y, latents.flip(0), batch_size=2)
    torch.testing.assert_close(whole.effects, pieces.effects.flip(0))
    assert whole.joint_effect == pytest.approx(pieces.joint_effect)
    assert whole.rank_agreement is None


def test_a_latent_that_does_not_fire_has_an_effect_of_exactly_0() -> None:
    sae = tiny_sae(bias=-1.0)
    with torch.no_grad():
        sae.b_enc[7] = -1e6
    found = measure_latents(TOWER, image(), sae, Y, torch.tensor([8, 7, 3]))
    assert found.effects[1] == 0
    assert (found.effects[[0, 2]] != 0).all()
    silent = measure_latents(TOWER, image(), sae, Y, torch.tensor([7]))
    assert (silent.joint_effect, silent.interaction_share) == (0.0, None)


def test_one_latent_interacts_with_nothing() -> None:
    found = measure_latents(TOWER, image(), SAE, Y, torch.tensor([8]))
    assert found.joint_effect == pytest.approx(float(found.effects[0]))
    assert found.interaction_share == pytest.approx(0, abs=1e-9)


def test_no_latents_are_measured_as_nothing() -> None:
    found = measure_latents(TOWER, image(), SAE, Y, torch.tensor([], dtype=torch.long))
    assert found.effects.numel() == 0
    assert (found.joint_effect, found.interaction_share, found.rank_agreement) == (0.0, None, None)


def slow_spearman(a: list[float], b: list[float]) -> float:
    """Pearson's correlation of mean ranks, counted."""

    def ranks(values: list[float]) -> list[float]:
        return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]

    ra, rb = np.array(ranks(a)), np.array(ranks(b))
    ra, rb = ra - ra.mean(), rb - rb.mean()
    return float((ra * rb).sum() / np.sqrt((ra**2).sum() * (rb**2).sum()))


few_values = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=12)


@settings(max_examples=80, deadline=None)
@given(few_values)
def test_rank_agreement_is_spearmans_with_ties_at_their_mean_rank(pairs: list[tuple[int, int]]) -> None:
    a, b = [float(p[0]) for p in pairs], [float(p[1]) for p in pairs]
    assume(len(set(a)) > 1)
    assume(len(set(b)) > 1)
    found = rank_agreement(a, b)
    assert found == pytest.approx(slow_spearman(a, b), abs=1e-12)
    assert found == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b"), [([], []), ([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])]
)
def test_rank_agreement_of_fewer_than_three_values_or_constant_ones_does_not_exist(a, b) -> None:
    assert rank_agreement(a, b) is None
