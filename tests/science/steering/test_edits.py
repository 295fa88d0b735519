"""Edits against a loop over tokens and latents written from SCIENCE.md 4."""

from typing import Any, assert_never

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.science.tiny import TinyTower, TopKSae, tiny_images, tiny_sae
from torch import Tensor

from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import (
    Add,
    Affine,
    Cap,
    Edit,
    Floor,
    LatentCondition,
    MeanAblate,
    ProjectOut,
    Scale,
    Scope,
    SetTo,
)
from fulcrum.domain.errors import EditCannotReachOutput, InvalidEdit, LatentOutOfRange
from fulcrum.science.sae.base import Sae
from fulcrum.science.steering.edits import EditPlan, apply_edits, plan_rows
from fulcrum.science.steering.scopes import scope_tokens

TOWER = TinyTower(block=0)
D_SAE = 20


def activations(n: int, tower: TinyTower = TOWER, seed: int = 2) -> Tensor:
    return tower.prefix(tiny_images(n, tower, seed)).x.detach()


def slow_z(edit: Edit, z: float) -> float:
    match edit.kind:
        case "scale":
            return edit.gain * z
        case "set":
            return edit.value
        case "cap":
            return min(z, edit.value)
        case "floor":
            return max(z, edit.value)
        case "add":
            return z + edit.value
        case "mean_ablate":
            return edit.mean
        case "affine":
            return edit.gain * z + edit.shift
        case "project_out":
            return z
        case _:
            assert_never(edit.kind)


def slow_edit(sae: Sae, x: Tensor, plan: EditPlan, inside: list[bool]) -> Tensor:
    """One image, token by token, with the SAE's formula written out. One `project_out` at most."""
    out = x.clone()
    s, mu = float(sae.norm_scale), sae.norm_mean
    for t in range(x.shape[0]):
        if not inside[t]:
            continue
        pre = (s * (x[t] - mu) - sae.b_dec) @ sae.W_enc + sae.b_enc
        z = sae.activate(pre).detach()
        for edit in plan.edits:
            j = edit.latent
            if edit.kind == "project_out":
                v = sae.W_dec[j] if edit.direction == "decoder" else sae.W_enc[:, j]
                out[t] = out[t] - (1 - edit.keep) * (v @ x[t]) / (v @ v) * v
            else:
                out[t] = out[t] + (slow_z(edit, float(z[j])) - float(z[j])) * sae.W_dec[j] / s
        if plan.drop_error:
            x_hat = (z @ sae.W_dec + sae.b_dec) / s + mu
            out[t] = out[t] - (x[t] - x_hat)
    return out.detach()


numbers = st.floats(-3, 3, allow_nan=False)
positive = st.floats(0, 3, allow_nan=False)


@st.composite
def edit_sets(draw: st.DrawFn) -> tuple[Edit, ...]:
    latents = draw(st.lists(st.integers(0, D_SAE - 1), max_size=4, unique=True))
    edits: list[Edit] = []
    for latent in latents:
        kinds = ["scale", "set", "cap", "floor", "add", "mean_ablate", "affine"]
        if not any(e.kind == "project_out" for e in edits):
            kinds += ["project_decoder", "project_encoder"]
        match draw(st.sampled_from(kinds)):
            case "scale":
                edits.append(Scale(latent, draw(numbers)))
            case "set":
                edits.append(SetTo(latent, draw(numbers)))
            case "cap":
                edits.append(Cap(latent, draw(positive)))
            case "floor":
                edits.append(Floor(latent, draw(numbers)))
            case "add":
                edits.append(Add(latent, draw(numbers)))
            case "mean_ablate":
                edits.append(MeanAblate(latent, draw(positive)))
            case "affine":
                edits.append(Affine(latent, draw(numbers), draw(numbers)))
            case "project_decoder":
                edits.append(ProjectOut(latent, draw(numbers)))
            case "project_encoder":
                edits.append(ProjectOut(latent, draw(numbers), "encoder"))
    return tuple(edits)


scopes = st.one_of(
    st.sampled_from([Scope(), Scope("cls"), Scope("patches")]),
    st.lists(st.integers(0, 8), min_size=1, max_size=4).map(lambda p: Scope("patch_list", tuple(p))),
)
# The arguments of a plan: built inside the test, as the type checks of its constructor draw random numbers.
plans = st.tuples(edit_sets(), scopes, st.just(()), st.booleans())


@settings(max_examples=60, deadline=None)
@given(st.lists(plans, min_size=1, max_size=5), st.sampled_from([True, False]), st.data())
def test_a_batch_of_plans_equals_the_slow_twin_row_by_row(
    arguments: list[tuple[Any, ...]], pointwise: bool, data: st.DataObject
) -> None:
    batch = [EditPlan(*a) for a in arguments]
    sae = tiny_sae() if pointwise else tiny_sae(TopKSae)
    x = activations(3)
    rows = data.draw(st.lists(st.integers(0, 2), min_size=len(batch), max_size=len(batch)))
    edited = apply_edits(TOWER, sae, x, batch, rows)
    for i, (plan, row) in enumerate(zip(batch, rows, strict=True)):
        inside = scope_tokens(TOWER, plan.scope).tolist()
        torch.testing.assert_close(edited.x[i], slow_edit(sae, x[row], plan, inside), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("edit", "z_fires", "z_silent"),
    [
        (Scale(0, 0.0), 0.0, 0.0),
        (Scale(0, 3.0), 6.0, 0.0),
        (Scale(0, -1.0), -2.0, 0.0),
        (SetTo(0, 0.5), 0.5, 0.5),
        (Cap(0, 1.5), 1.5, 0.0),
        (Cap(0, 2.5), 2.0, 0.0),
        (Floor(0, 2.5), 2.5, 2.5),
        (Floor(0, 1.0), 2.0, 1.0),
        (Add(0, 0.25), 2.25, 0.25),
        (MeanAblate(0, 0.1), 0.1, 0.1),
    ],
)
def test_each_kind_gives_the_value_computed_by_hand_with_a_normalised_sae(
    edit: Edit, z_fires: float, z_silent: float
) -> None:
    sae = tiny_sae(bias=0.0)
    with torch.no_grad():
        # Latent 0 reads and writes the first coordinate: N(x) - b_dec = s (x - mu) - b_dec.
        sae.W_enc[:, 0] = 0
        sae.W_enc[0, 0] = 1
        sae.W_dec[0] = 0
        sae.W_dec[0, 0] = 1
    s, mu, b = 1.7, sae.norm_mean[0].item(), sae.b_dec[0].item()
    x = torch.zeros(1, TOWER.n_tokens, TOWER.d_in, dtype=torch.float64)
    x[0, 0, 0] = (2 + b) / s + mu  # z = 2
    x[0, 1:, 0] = (-1 + b) / s + mu  # silent
    edited = apply_edits(TOWER, sae, x, [EditPlan((edit,))])
    expected = x.clone()
    expected[0, 0, 0] += (z_fires - 2) / s
    expected[0, 1:, 0] += z_silent / s
    torch.testing.assert_close(edited.x, expected)
    assert edited.z_edited[0, 0, 0].item() == pytest.approx(z_fires)


def test_project_out_by_hand_removes_the_share_not_kept_along_the_unit_direction() -> None:
    sae = tiny_sae()
    with torch.no_grad():
        sae.W_dec[4] = 0
        sae.W_dec[4, :2] = torch.tensor([3.0, 4.0])
    x = activations(1)
    edited = apply_edits(TOWER, sae, x, [EditPlan((ProjectOut(4, keep=0.25),))])
    along = 0.6 * x[..., 0] + 0.8 * x[..., 1]
    expected = x.clone()
    expected[..., 0] -= 0.75 * along * 0.6
    expected[..., 1] -= 0.75 * along * 0.8
    torch.testing.assert_close(edited.x, expected)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, D_SAE - 1), min_size=1, max_size=4, unique=True), st.data())
def test_several_projections_each_keep_their_share_whatever_their_order(
    latents: list[int], data: st.DataObject
) -> None:
    sae, x = tiny_sae(), activations(1)
    edits = [ProjectOut(n, data.draw(st.floats(0, 1))) for n in latents]
    edited = apply_edits(TOWER, sae, x, [EditPlan(tuple(edits))]).x
    for edit in edits:
        direction = sae.W_dec[edit.latent]
        torch.testing.assert_close(edited @ direction, edit.keep * (x @ direction), rtol=1e-7, atol=1e-7)
    # The change lies in the span of the directions: nothing else moves.
    basis = torch.linalg.qr(sae.W_dec[latents].T).Q
    change = edited - x
    torch.testing.assert_close(change @ basis @ basis.T, change, rtol=1e-7, atol=1e-7)
    again = apply_edits(TOWER, sae, x, [EditPlan(tuple(reversed(edits)))]).x
    torch.testing.assert_close(again, edited, rtol=1e-9, atol=1e-9)


def test_projections_with_one_keep_are_the_orthogonal_projector_even_when_directions_repeat() -> None:
    sae, x = tiny_sae(), activations(1)
    with torch.no_grad():
        sae.W_dec[1] = -2 * sae.W_dec[0]
    plan = EditPlan((ProjectOut(0, 0.3), ProjectOut(1, 0.3), ProjectOut(2, 0.3)))
    basis = torch.linalg.qr(sae.W_dec[[0, 2]].T).Q
    expected = x - 0.7 * x @ basis @ basis.T
    torch.testing.assert_close(apply_edits(TOWER, sae, x, [plan]).x, expected.detach())


def test_projecting_out_a_direction_of_norm_zero_changes_nothing_and_gives_no_nan() -> None:
    sae, x = tiny_sae(), activations(1)
    with torch.no_grad():
        sae.W_dec[7] = 0
    edited = apply_edits(TOWER, sae, x, [EditPlan((ProjectOut(7),))])
    assert torch.equal(edited.x, x)
    assert not edited.changed.any()


IDENTITIES = [
    EditPlan(),
    EditPlan((Scale(0, 1.0), Scale(3, 1.0))),
    EditPlan((Cap(2, 1e6), Floor(5, 0.0), Add(6, 0.0), ProjectOut(8, keep=1.0))),
    EditPlan((Scale(1, 0.0),), conditions=(LatentCondition(1, ">=", 1e6),)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("plan", IDENTITIES)
def test_an_edit_with_nothing_to_do_leaves_every_bit_of_x(plan: EditPlan, dtype: torch.dtype) -> None:
    x = activations(2).to(dtype)
    edited = apply_edits(TOWER, tiny_sae(dtype=torch.float32), x, [plan, plan])
    assert torch.equal(edited.x, x)
    assert not edited.changed.any()


def test_tokens_out_of_scope_and_rows_without_edits_are_bit_equal_beside_edited_ones() -> None:
    x = activations(3).float()
    sae = tiny_sae(dtype=torch.float32)
    batch = [EditPlan((SetTo(0, 5.0),), Scope("patch_list", (2, 4))), EditPlan(), EditPlan((Scale(1, 9.0),))]
    edited = apply_edits(TOWER, sae, x, batch)
    untouched = torch.ones(TOWER.n_tokens, dtype=torch.bool)
    untouched[[3, 5]] = False  # CLS is token 0
    assert torch.equal(edited.x[0, untouched], x[0, untouched])
    assert (edited.x[0, ~untouched] != x[0, ~untouched]).any(dim=1).all()
    assert torch.equal(edited.x[1], x[1])
    silent = sae.encode(x[2])[:, 1] == 0
    assert silent.any()
    assert not silent.all()
    assert torch.equal(edited.x[2, silent], x[2, silent])
    assert torch.equal(edited.changed[2], ~silent)


@settings(max_examples=25, deadline=None)
@given(st.lists(plans, min_size=2, max_size=5))
def test_a_row_is_edited_the_same_alone_as_beside_others(arguments: list[tuple[Any, ...]]) -> None:
    batch = [EditPlan(*a) for a in arguments]
    sae, x = tiny_sae(), activations(1)
    together = apply_edits(TOWER, sae, x, batch, [0] * len(batch))
    for i, plan in enumerate(batch):
        alone = apply_edits(TOWER, sae, x, [plan])
        torch.testing.assert_close(together.x[i], alone.x[0], rtol=1e-12, atol=1e-12)
        assert torch.equal(together.changed[i], alone.changed[0])


def test_the_unedited_activations_are_never_written_to() -> None:
    x = activations(2)
    kept = x.clone()
    apply_edits(TOWER, tiny_sae(), x, [EditPlan((Scale(0, 0.0), ProjectOut(2)), drop_error=True)] * 2)
    assert torch.equal(x, kept)


def test_the_error_stays_as_it_was_so_an_edit_is_not_cancelled() -> None:
    """Trap 1: with the error recomputed from x' the sum is x again, and steering is a silent no-op."""
    sae, x = tiny_sae(), activations(1)
    edited = apply_edits(TOWER, sae, x, [EditPlan((Scale(0, 0.0),))]).x
    z = sae.encode(x)
    error = x - sae.decode(z)
    z_edited = z.clone()
    z_edited[..., 0] = 0
    torch.testing.assert_close(edited, (sae.decode(z_edited) + error).detach())
    assert not torch.equal(edited, x)


def test_without_drop_error_nothing_of_the_error_is_lost_and_with_it_all_of_it_is() -> None:
    """Trap 2: an error dropped silently changes the model with no edit at all."""
    sae, x = tiny_sae(), activations(1)
    assert torch.equal(apply_edits(TOWER, sae, x, [EditPlan()]).x, x)
    alone = apply_edits(TOWER, sae, x, [EditPlan(drop_error=True)])
    torch.testing.assert_close(alone.x, sae(x).detach())
    assert alone.changed.all()


def test_half_precision_activations_are_edited_in_the_precision_of_the_sae() -> None:
    sae = tiny_sae(dtype=torch.float32)
    x = activations(1).to(torch.bfloat16)
    edited = apply_edits(TOWER, sae, x, [EditPlan((Scale(0, 0.0),))])
    exact = apply_edits(TOWER, sae, x.float(), [EditPlan((Scale(0, 0.0),))])
    assert edited.x.dtype == torch.bfloat16
    assert torch.equal(edited.x, exact.x.to(torch.bfloat16))


def test_latent_codes_of_a_topk_sae_are_never_negative_so_scale_and_set_keep_their_sign() -> None:
    """Trap 12: without relu a code can be negative, and suppressing it would amplify."""
    sae = tiny_sae(TopKSae, bias=-5.0)  # most of the top pre-activations are below zero
    x = activations(2)
    edited = apply_edits(TOWER, sae, x, [EditPlan(tuple(Scale(j, 0.0) for j in range(D_SAE)))] * 2)
    assert (edited.z >= 0).all()
    assert torch.equal(edited.z_edited, torch.zeros_like(edited.z_edited))


def test_a_plan_is_the_acting_part_of_a_correction() -> None:
    correction = Correction(
        "m", "s", "visual.blocks.0.resid_post", (Scale(1, 0.0),), Scope("cls"), drop_error=True
    )
    assert EditPlan.of(correction) == EditPlan((Scale(1, 0.0),), Scope("cls"), (), True)


@pytest.mark.parametrize(
    "plan", [EditPlan((Scale(D_SAE, 0.0),)), EditPlan(conditions=(LatentCondition(D_SAE + 3, ">=", 0.0),))]
)
def test_a_latent_which_the_sae_does_not_have_is_refused_with_the_allowed_range(plan: EditPlan) -> None:
    with pytest.raises(LatentOutOfRange, match=r"2[03].*0 \.\. 19"):
        apply_edits(TOWER, tiny_sae(), activations(1), [plan])


def test_a_latent_edited_twice_is_refused() -> None:
    with pytest.raises(InvalidEdit, match="more than once: \\[3\\]"):
        EditPlan((Scale(3, 0.0), Add(3, 1.0)))


def test_a_patch_outside_the_grid_is_refused_with_the_grid_in_the_message() -> None:
    with pytest.raises(InvalidEdit, match=r"patch 9 .*3 x 3.*0 \.\. 8"):
        apply_edits(
            TOWER, tiny_sae(), activations(1), [EditPlan((Scale(0, 0.0),), Scope("patch_list", (1, 9)))]
        )


def test_scope_cls_is_refused_on_a_tower_without_cls_and_patches_start_at_token_0_there() -> None:
    tower = TinyTower(has_cls=False)
    x = activations(1, tower)
    with pytest.raises(InvalidEdit, match="without CLS"):
        apply_edits(tower, tiny_sae(), x, [EditPlan((Scale(0, 0.0),), Scope("cls"))])
    edited = apply_edits(tower, tiny_sae(), x, [EditPlan((SetTo(0, 9.0),), Scope("patch_list", (0,)))])
    assert edited.changed[0].nonzero().flatten().tolist() == [0]


@pytest.mark.parametrize("scope", [Scope("patches"), Scope("patch_list", (0,))])
def test_a_patch_edit_after_the_last_block_of_a_cls_pooled_tower_is_refused(scope: Scope) -> None:
    """Trap 4."""
    tower = TinyTower(block=2)
    with pytest.raises(EditCannotReachOutput, match="only the CLS token can"):
        apply_edits(tower, tiny_sae(), activations(1, tower), [EditPlan((Scale(0, 0.0),), scope)])
    # The whole image holds CLS, so it is allowed.
    assert apply_edits(tower, tiny_sae(), activations(1, tower), [EditPlan((SetTo(0, 2.0),))]).changed.any()


def test_a_cls_edit_where_only_patches_reach_the_output_is_refused() -> None:
    class PatchPooled(TinyTower):
        reaches_output = "patches"

    tower = PatchPooled()
    with pytest.raises(EditCannotReachOutput, match="only the patch tokens can"):
        apply_edits(tower, tiny_sae(), activations(1), [EditPlan((Scale(0, 0.0),), Scope("cls"))])


def test_plans_go_to_their_images_by_default_and_mismatches_are_refused() -> None:
    assert plan_rows(3, 3, None).tolist() == [0, 1, 2]
    assert plan_rows(1, 4, None).tolist() == [0, 0, 0, 0]
    assert plan_rows(2, 3, [1, 1, 0]).tolist() == [1, 1, 0]
    for n_images, n_plans, rows in [(2, 3, None), (2, 2, [0, 2]), (2, 2, [-1, 0]), (2, 2, [0])]:
        with pytest.raises(InvalidEdit):
            plan_rows(n_images, n_plans, rows)


def test_no_plans_give_no_rows() -> None:
    edited = apply_edits(TOWER, tiny_sae(), activations(2), [], [])
    assert edited.x.shape == (0, TOWER.n_tokens, TOWER.d_in)
    assert edited.changed_rows.numel() == 0
