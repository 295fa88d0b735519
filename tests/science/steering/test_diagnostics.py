from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.science.tiny import TinyTower, tiny_images, tiny_sae

from fulcrum.domain.edits import Add, LatentCondition, ProjectOut, Scale, Scope, SetTo
from fulcrum.domain.results import EditDiagnostics
from fulcrum.science.sae.base import Sae, SaeConfig
from fulcrum.science.sae.units import Units
from fulcrum.science.steering.diagnostics import diagnose
from fulcrum.science.steering.edits import EditPlan, apply_edits

TOWER = TinyTower()


def diagnosed(plan: EditPlan, sae: Sae | None = None, image: int = 0) -> tuple[EditDiagnostics, torch.Tensor]:
    sae = sae or tiny_sae()
    x = TOWER.prefix(tiny_images(2, TOWER)).x.detach()
    edited = apply_edits(TOWER, sae, x, [EditPlan(), plan], [0, image])
    return diagnose(sae, x, edited, plan, index=1), x[image]


def test_fired_says_for_each_edit_whether_its_latent_is_active_in_scope() -> None:
    sae = tiny_sae()
    x = TOWER.prefix(tiny_images(2, TOWER)).x.detach()
    cls = sae.encode(x[1, 0]) > 0
    on, off = int(cls.nonzero()[0]), int((~cls).nonzero()[0])
    found, _ = diagnosed(EditPlan((Scale(off, 0.0), Scale(on, 0.0)), Scope("cls")), image=1)
    assert found.fired == (False, True)
    assert found.condition_met
    assert found.changed


def test_relative_change_is_the_length_of_the_push_over_the_length_of_x_per_token() -> None:
    found, x = diagnosed(EditPlan((Add(3, 0.5),), Scope("patch_list", (4,))))
    sae = tiny_sae()
    expected = np.zeros(TOWER.n_tokens)
    expected[5] = 0.5 * float((sae.W_dec[3] / 1.7).norm().detach()) / float(x[5].norm())
    np.testing.assert_allclose(found.relative_change, expected, rtol=1e-12)


def test_a_token_pushed_away_from_zero_has_changed_infinitely_and_an_untouched_zero_not_at_all() -> None:
    sae = tiny_sae()
    x = torch.zeros(1, TOWER.n_tokens, TOWER.d_in, dtype=torch.float64)
    plan = EditPlan((Add(3, 0.5),), Scope("cls"))
    edited = apply_edits(TOWER, sae, x, [plan])
    found = diagnose(sae, x, edited, plan)
    assert found.relative_change.tolist() == [float("inf")] + [0.0] * 9


def orthonormal_sae() -> Sae:
    """Encoder = decoder transposed, orthonormal: what is written is read back exactly."""
    sae = tiny_sae(d_sae=12, bias=0.0)
    with torch.no_grad():
        sae.W_dec.copy_(torch.linalg.qr(sae.W_dec.T).Q.T)
        sae.W_enc.copy_(sae.W_dec.T)
    return sae


def test_an_orthonormal_sae_reads_back_what_was_written_and_nothing_else_moves() -> None:
    found, _ = diagnosed(EditPlan((Scale(0, 0.0), Scale(1, 0.5), Scale(2, 3.0))), orthonormal_sae())
    assert found.reencode_error == pytest.approx(0, abs=1e-12)
    assert all(abs(change) < 1e-12 for _, change in found.moved_latents)


def test_overlapping_latents_show_up_in_the_reencode_check_and_among_the_moved_ones() -> None:
    sae = tiny_sae()
    plan = EditPlan((SetTo(4, 3.0),))
    found, x = diagnosed(plan, sae)
    x_after = apply_edits(TOWER, sae, x[None], [plan]).x[0]
    before, after = sae.encode(x).detach(), sae.encode(x_after).detach()
    assert found.reencode_error == pytest.approx(float((after[:, 4] - 3.0).abs().max()))
    assert found.reencode_error > 0
    change = after.amax(0) - before.amax(0)
    change[4] = 0
    expected = sorted(range(20), key=lambda j: -abs(float(change[j])))[:10]
    assert [latent for latent, _ in found.moved_latents] == expected
    assert [c for _, c in found.moved_latents] == pytest.approx([float(change[j]) for j in expected])


def test_a_write_to_a_silent_latent_is_read_back_short_by_how_far_it_was_from_firing() -> None:
    sae = orthonormal_sae()
    found, x = diagnosed(EditPlan((SetTo(0, 2.0),)), sae)
    pre = sae.pre_acts(x)[:, 0].detach()
    assert pre.min() < 0
    assert found.reencode_error == pytest.approx(min(2.0, -float(pre.min())))


def test_a_projection_asks_for_no_latent_value_so_there_is_no_reencode_error() -> None:
    found, _ = diagnosed(EditPlan((ProjectOut(0),)))
    assert found.reencode_error == 0.0
    assert found.changed


def test_a_condition_that_fails_and_an_identity_are_told_apart_from_an_edit() -> None:
    failed, _ = diagnosed(EditPlan((SetTo(0, 2.0),), conditions=(LatentCondition(0, ">=", 1e9),)))
    identity, _ = diagnosed(EditPlan((Scale(0, 1.0),)))
    assert (failed.condition_met, failed.changed) == (False, False)
    assert (identity.condition_met, identity.changed) == (True, False)
    for found in (failed, identity):
        assert found.relative_change.max() == 0
        assert found.moved_latents == ()
        assert found.reencode_error == pytest.approx(0, abs=1e-12)


def units() -> Sae:
    return Units(SaeConfig("units", TOWER.d_in, TOWER.d_in)).double()


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([tiny_sae, orthonormal_sae, units]),
    st.sets(st.integers(0, 9), min_size=1),
    st.lists(st.integers(0, 11), min_size=1, max_size=3, unique=True),
    st.sampled_from([SetTo(0, 2.0), Add(0, -0.7), Scale(0, 0.0), Scale(0, -2.0), Scale(0, 1.0)]),
)
def test_what_is_encoded_again_and_what_is_kept_are_the_whole_image_encoded_twice(
    make: Callable[[], Sae], tokens: set[int], latents: list[int], edit: SetTo | Add | Scale
) -> None:
    sae = make()
    x = TOWER.prefix(tiny_images(2, TOWER)).x.detach()
    patches = tuple(sorted(token - 1 for token in tokens if token))
    scope = Scope("patch_list", patches) if patches else Scope("cls")
    plan = EditPlan(tuple(replace(edit, latent=latent) for latent in latents), scope)
    edited = apply_edits(TOWER, sae, x, [EditPlan(), plan], [1, 0])
    with torch.no_grad():
        known = sae.encode_sparse(x[0])
        before, after = sae.encode(x[0]), sae.encode(edited.x[1])
    found = diagnose(sae, x, edited, plan, index=1, n_moved=20, sparse=known)
    change = after.amax(0) - before.amax(0)
    change[latents] = 0
    moved = torch.zeros_like(change)
    for latent, value in found.moved_latents:
        moved[latent] = value
    torch.testing.assert_close(moved, change, rtol=0, atol=1e-12)
    inside = edited.in_scope[1]
    column = [edited.latents.tolist().index(latent) for latent in latents]
    error = (after[inside][:, latents] - edited.z_edited[1][inside][:, column]).abs().max()
    assert found.reencode_error == pytest.approx(float(error), abs=1e-12)
    again = diagnose(sae, x, edited, plan, index=1, n_moved=20)
    assert (again.moved_latents, again.reencode_error) == (found.moved_latents, found.reencode_error)


def test_only_the_tokens_that_an_edit_changed_are_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sae = tiny_sae()
    x = TOWER.prefix(tiny_images(2, TOWER)).x.detach()
    plan = EditPlan((Add(3, 0.5),), Scope("patch_list", (4, 7)))
    edited = apply_edits(TOWER, sae, x, [plan], [1])
    known = sae.encode_sparse(x[1])
    encoded: list[torch.Tensor] = []
    encode = sae.encode
    monkeypatch.setattr(sae, "encode", lambda part: encoded.append(part) or encode(part))
    assert diagnose(sae, x, edited, plan, sparse=known).changed
    [part] = encoded
    torch.testing.assert_close(part, edited.x[0, [5, 8]], rtol=0, atol=0)
