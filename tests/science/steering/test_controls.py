from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.science.tiny import TinyTower, tiny_images, tiny_sae

from fulcrum.domain.edits import Add, Affine, Cap, Floor, MeanAblate, ProjectOut, Scale, Scope, SetTo
from fulcrum.domain.errors import InvalidSettings
from fulcrum.science.sae.base import Sae
from fulcrum.science.steering.controls import judge, matched_plans, rotated_deltas, stood_in
from fulcrum.science.steering.edits import EditPlan, apply_edits

TOWER = TinyTower()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(0, 100))
def test_a_rotated_push_keeps_every_norm_and_every_angle_between_tokens(rank: int, seed: int) -> None:
    drawn = torch.randn(10, rank, generator=generator(seed), dtype=torch.float64)
    delta = drawn @ torch.randn(rank, 16, generator=generator(seed + 1), dtype=torch.float64)
    delta[3] = 0
    turned = rotated_deltas(delta, 5, generator(seed))
    for one in turned:
        torch.testing.assert_close(one @ one.T, delta @ delta.T)
    assert (turned[:, 3] == 0).all()


def test_rotations_of_one_direction_are_uniform_on_the_sphere() -> None:
    delta = torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64)
    turned = rotated_deltas(delta, 4000, generator())[:, 0]
    torch.testing.assert_close(turned.norm(dim=1), torch.full((4000,), 2.0, dtype=torch.float64))
    # Each coordinate of a uniform point on the sphere of radius 2 has mean 0 and variance 4/3.
    assert turned.mean(0).abs().max() < 5 * (4 / 3 / 4000) ** 0.5
    assert (turned.var(0) - 4 / 3).abs().max() < 0.1


def test_draws_depend_on_the_seed_alone_and_a_push_of_zero_stays_zero() -> None:
    delta = torch.randn(4, 6, generator=generator(), dtype=torch.float64)
    assert torch.equal(rotated_deltas(delta, 3, generator(7)), rotated_deltas(delta, 3, generator(7)))
    assert not torch.equal(rotated_deltas(delta, 3, generator(7)), rotated_deltas(delta, 3, generator(8)))
    assert (rotated_deltas(torch.zeros_like(delta), 3, generator()) == 0).all()


def matched(sae: Sae, x: torch.Tensor, *rest: Any) -> list[EditPlan]:
    with torch.no_grad():
        sparse = sae.encode_sparse(x)
    return matched_plans(TOWER, sae, sparse, *rest)


def contributions(scope: Scope | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    sae = tiny_sae()
    x = TOWER.prefix(tiny_images(1, TOWER)).x[0].detach()
    z = sae.encode(x).detach()
    if scope == Scope("cls"):
        z = z[:1]
    return x, z.norm(dim=0) * (sae.W_dec / 1.7).norm(dim=1).detach()


def test_one_latent_gives_way_to_the_others_with_the_nearest_contribution_each_once() -> None:
    x, contribution = contributions()
    latent = int(contribution.argsort()[-4])
    plans = matched(tiny_sae(), x, EditPlan((Scale(latent, 0.25),)), 5, generator())
    chosen = [plan.edits[0].latent for plan in plans]
    others = [j for j in range(20) if j != latent and contribution[j] > 0]
    distance = (contribution.log() - contribution[latent].log()).abs()
    assert chosen == sorted(others, key=lambda j: float(distance[j]))[:5]
    assert all(plan.edits[0] == Scale(chosen[i], 0.25) for i, plan in enumerate(plans))


def test_firing_rates_sharpen_the_match() -> None:
    x, contribution = contributions()
    latent = int(contribution.argmax())
    twin = int(contribution.argsort()[-6])
    rates = np.full(20, 1e-5)
    rates[[latent, twin]] = 0.9
    plans = matched(tiny_sae(), x, EditPlan((Scale(latent, 0.0),)), 3, generator(), rates)
    assert plans[0].edits[0].latent == twin


def test_several_latents_give_way_to_different_ones_and_never_to_edited_ones() -> None:
    x, contribution = contributions()
    edited = tuple(contribution.argsort()[-3:].tolist())
    plan = EditPlan(tuple(Scale(j, 0.0) for j in edited), Scope("patches"))
    plans = matched(tiny_sae(), x, plan, 8, generator(1))
    assert len(plans) == 8
    for drawn in plans:
        latents = [e.latent for e in drawn.edits]
        assert len(set(latents)) == 3
        assert not set(latents) & set(edited)
        assert drawn.scope == plan.scope
    again = matched(tiny_sae(), x, plan, 8, generator(1))
    assert again == plans


def test_values_in_a_latents_own_units_are_carried_over_so_that_the_push_keeps_its_size() -> None:
    sae = tiny_sae()
    x, contribution = contributions()
    size = sae.W_dec.norm(dim=1).detach()
    latent = int(contribution.argmax())
    for edit in (Add(latent, 0.7), SetTo(latent, 0.7), Floor(latent, 0.7)):
        drawn = matched(sae, x, EditPlan((edit,)), 1, generator())[0].edits[0]
        assert drawn.kind == edit.kind
        assert drawn.value * float(size[drawn.latent]) == pytest.approx(0.7 * float(size[latent]))
    mean = matched(sae, x, EditPlan((MeanAblate(latent, 0.7),)), 1, generator())[0].edits[0]
    assert isinstance(mean, MeanAblate)
    assert mean.mean * float(size[mean.latent]) == pytest.approx(0.7 * float(size[latent]))
    affine = matched(sae, x, EditPlan((Affine(latent, 0.5, 0.7),)), 1, generator())[0].edits[0]
    assert isinstance(affine, Affine)
    assert affine.gain == 0.5
    assert affine.shift * float(size[affine.latent]) == pytest.approx(0.7 * float(size[latent]))
    out = ProjectOut(latent, 0.5, "encoder")
    drawn = matched(sae, x, EditPlan((out,)), 1, generator())[0].edits[0]
    assert drawn == ProjectOut(drawn.latent, 0.5, "encoder")
    z = sae.encode(x).detach().amax(0)
    cap = matched(sae, x, EditPlan((Cap(latent, float(z[latent]) / 2),)), 1, generator())[0].edits[0]
    assert isinstance(cap, Cap)
    assert cap.value == pytest.approx(float(z[cap.latent]) / 2)


def test_an_add_on_other_latents_pushes_every_token_as_far_as_the_edit_does() -> None:
    sae = tiny_sae()
    x, contribution = contributions()
    plan = EditPlan((Add(int(contribution.argmax()), 0.7),))
    others = matched(sae, x, plan, 6, generator())
    edited = apply_edits(TOWER, sae, x[None], [plan, *others])
    push = (edited.x - x).norm(dim=2)
    torch.testing.assert_close(push, push[:1].expand_as(push))


def test_an_edit_that_needs_a_firing_latent_and_has_none_gets_no_stand_in() -> None:
    sae = tiny_sae()
    x, contribution = contributions()
    latent = int(contribution.argmax())
    with torch.no_grad():
        sae.b_enc[5] = -100.0
    plans = matched(sae, x, EditPlan((Scale(5, 0.0), Scale(latent, 0.0))), 4, generator())
    assert all(len(plan.edits) == 1 for plan in plans)
    assert matched(sae, x, EditPlan((Scale(5, 0.0),)), 4, generator()) == []
    # Writing to a silent latent is a push; with firing rates it is compared to latents as rare as it is.
    rates = np.linspace(0.9, 0.1, 20)
    rates[5] = 0.101
    written = matched(sae, x, EditPlan((Add(5, 1.0),)), 2, generator(), rates)
    assert written[0].edits[0].latent == 19


def test_a_latent_that_fires_without_a_direction_is_matched_as_a_silent_one() -> None:
    sae = tiny_sae()
    x, contribution = contributions()
    dead = int(contribution.argmax())
    with torch.no_grad():
        sae.W_dec[dead] = 0
        sae.b_enc[5] = -100.0  # fires nowhere in this image, and is like the dead one in its firing rate
    rates = np.full(20, 1e-5)
    rates[[dead, 5]] = 0.5
    [plan] = matched(sae, x, EditPlan((Add(dead, 1.0),)), 1, generator(), rates)
    assert plan.edits[0].latent == 5


def test_fewer_candidates_give_fewer_plans_and_a_plan_without_edits_none() -> None:
    x, contribution = contributions(Scope("cls"))
    active = int((contribution > 0).sum())
    latent = int(contribution.argmax())
    plans = matched(tiny_sae(), x, EditPlan((Scale(latent, 0.0),), Scope("cls")), 32, generator())
    assert len(plans) == active - 1
    assert matched(tiny_sae(), x, EditPlan(drop_error=True), 32, generator()) == []


def test_firing_rates_of_another_sae_are_refused() -> None:
    x, _ = contributions()
    with pytest.raises(InvalidSettings, match=r"\(19,\).*20 latents"):
        matched(tiny_sae(), x, EditPlan((Scale(1, 0.0),)), 4, generator(), np.ones(19))


def test_the_verdict_counts_draws_at_least_as_large_and_draws_that_flip_as_the_edit_does() -> None:
    draws = np.array([1.0, 3.0, -4.0, 2.0])
    verdict = judge("random_directions", (1.0, 0), (4.0, 2), draws, np.array([0, 2, 1, 2]))
    np.testing.assert_array_equal(verdict.target_changes, [0.0, 2.0, -5.0, 1.0])
    assert verdict.n_flipped == 2  # to class 2
    assert verdict.p_value == pytest.approx((1 + 1) / (1 + 4))
    unflipped = judge("matched_latents", (1.0, 0), (1.5, 0), draws, np.array([0, 2, 1, 0]))
    assert unflipped.n_flipped == 2  # to anything
    assert unflipped.p_value == pytest.approx((1 + 3) / 5)


def test_a_cap_is_carried_to_units_that_are_never_above_zero() -> None:
    """Units of a layer may be negative at every token: a cap there must stay one that can be asked for."""
    maxima, sizes = np.array([2.0, -1.0, 4.0]), np.ones(3)
    assert stood_in(Cap(0, 1.0), 2, maxima, sizes) == Cap(2, 2.0)
    assert stood_in(Cap(0, 1.0), 1, maxima, sizes) == Cap(1, 0.0)
    assert stood_in(Cap(1, 1.0), 0, maxima, sizes) == Cap(0, 1.0)
