"""Units of a layer in the place of an SAE."""

import pytest
import torch
from tests.science.tiny import TinyTower

from fulcrum.domain.edits import Add, Affine, Floor, MeanAblate, ProjectOut, Scale, Scope, SetTo
from fulcrum.domain.errors import InvalidSaeConfig
from fulcrum.science.sae.base import SaeConfig
from fulcrum.science.sae.units import Units
from fulcrum.science.steering.edits import EditPlan, apply_edits

TOWER = TinyTower()
D = TOWER.d_in


@pytest.fixture
def units():
    return Units(SaeConfig("units", D, D))


def activations(n_images=3, n_tokens=TOWER.n_tokens):
    return torch.randn(n_images, n_tokens, D, generator=torch.Generator().manual_seed(0))


def test_what_is_read_is_what_is_there_and_nothing_is_left_over(units):
    x = activations()
    assert torch.equal(units.encode(x), x)
    assert torch.equal(units(x), x)
    assert torch.equal(units.encode_selected(x, torch.tensor([4, 1])), x[..., [4, 1]])
    assert torch.equal(units.directions(torch.tensor([2])), torch.eye(D)[[2]])
    sparse = units.encode_sparse(x.flatten(0, 1))
    assert (x < 0).any()
    assert torch.equal(sparse.to_dense(), x.flatten(0, 1))


def test_one_matrix_is_encoder_and_decoder_also_after_it_moved(units):
    moved = units.to("cpu", torch.float64).to(torch.float32)
    assert moved.W_enc.data_ptr() == moved.W_dec.data_ptr()


def test_a_layer_has_as_many_latents_as_units():
    with pytest.raises(InvalidSaeConfig, match=f"{D} units are {D} latents, not {2 * D}"):
        Units(SaeConfig("units", D, 2 * D))


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (Scale(2, 0.25), lambda z: 0.25 * z),
        (SetTo(2, -1.5), lambda z: torch.full_like(z, -1.5)),
        (Add(2, 0.7), lambda z: z + 0.7),
        (Floor(2, -0.2), lambda z: z.clamp(min=-0.2)),
        (MeanAblate(2, 0.3), lambda z: torch.full_like(z, 0.3)),
        (Affine(2, -2.0, 0.5), lambda z: -2.0 * z + 0.5),
        (ProjectOut(2), torch.zeros_like),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_an_edit_changes_its_unit_and_no_other(units, edit, expected):
    x = activations()
    edited = apply_edits(TOWER, units, x, [EditPlan((edit,))] * len(x))
    wanted = x.clone()
    wanted[..., 2] = expected(x[..., 2])
    torch.testing.assert_close(edited.x, wanted, rtol=0, atol=1e-6)
    others = [unit for unit in range(D) if unit != 2]
    assert torch.equal(edited.x[..., others], x[..., others])


def test_a_scope_leaves_the_other_tokens_alone(units):
    x = activations()
    edited = apply_edits(TOWER, units, x, [EditPlan((SetTo(0, 9.0),), Scope("cls"))] * 3)
    assert torch.equal(edited.x[:, 1:], x[:, 1:])
    torch.testing.assert_close(edited.x[:, 0, 0], torch.full((3,), 9.0))
