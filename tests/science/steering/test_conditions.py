"""Truth tables of the conditions, on unedited activations and predictions."""

import pytest
import torch
from tests.science.tiny import TinyTower, tiny_head, tiny_images, tiny_sae

from fulcrum.domain.edits import (
    Condition,
    LatentCondition,
    MarginCondition,
    PredictedClassCondition,
    Scale,
    Scope,
    SetTo,
)
from fulcrum.domain.errors import InvalidEdit
from fulcrum.science.steering.conditions import conditions_met
from fulcrum.science.steering.edits import EditPlan, apply_edits
from fulcrum.science.steering.forward import steered_embeddings

MAXIMA = {0: torch.tensor([0.0, 1.0, 2.0]), 1: torch.tensor([3.0, 0.0, 3.0])}
# Images predict a (margin 2), b (margin 0.5), and a by the first of equal ones (margin 0).
LOGITS = torch.tensor([[4.0, 2.0, 0.0], [1.0, 1.5, 0.0], [5.0, 5.0, 0.0]])

TABLE: list[tuple[tuple[Condition, ...], list[bool]]] = [
    ((), [True, True, True]),
    ((LatentCondition(0, ">=", 1.0),), [False, True, True]),
    ((LatentCondition(0, "<=", 1.0),), [True, True, False]),
    ((LatentCondition(0, ">=", 1.5),), [False, False, True]),
    ((LatentCondition(0, "<=", 0.0),), [True, False, False]),
    ((LatentCondition(0, ">=", 1.0), LatentCondition(1, ">=", 1.0)), [False, False, True]),
    ((PredictedClassCondition(("a",)),), [True, False, True]),
    ((PredictedClassCondition(("b", "c")),), [False, True, False]),
    ((MarginCondition(0.5),), [False, False, True]),
    ((MarginCondition(0.6),), [False, True, True]),
    ((MarginCondition(0.0),), [False, False, False]),
    ((PredictedClassCondition(("a",)), MarginCondition(1.0)), [False, False, True]),
    ((PredictedClassCondition(("a",)), MarginCondition(1.0), LatentCondition(0, "<=", 1.0)), [False] * 3),
]


@pytest.mark.parametrize(("conditions", "expected"), TABLE)
def test_all_conditions_must_hold(conditions: tuple[Condition, ...], expected: list[bool]) -> None:
    assert conditions_met(conditions, MAXIMA.__getitem__, LOGITS, ("a", "b", "c"), 3).tolist() == expected


def test_the_margin_of_an_only_class_is_infinite_so_it_is_below_nothing() -> None:
    met = conditions_met((MarginCondition(1e9),), MAXIMA.__getitem__, LOGITS[:, :1], ("a",), 3)
    assert met.tolist() == [False] * 3


def test_a_class_that_is_not_in_the_class_set_is_refused() -> None:
    with pytest.raises(InvalidEdit, match=r"\['z'\].*\['a', 'b', 'c'\]"):
        conditions_met((PredictedClassCondition(("a", "z")),), MAXIMA.__getitem__, LOGITS, ("a", "b", "c"), 3)


def test_an_operator_which_does_not_exist_is_refused() -> None:
    # The value object refuses it, before anything is computed with it: this is what a file may bring.
    with pytest.raises(InvalidEdit, match=">= or <="):
        LatentCondition(0, ">", 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("condition", [MarginCondition(1.0), PredictedClassCondition(("a",))])
def test_a_condition_on_the_prediction_without_a_class_set_is_refused(condition: Condition) -> None:
    tower = TinyTower()
    state = tower.prefix(tiny_images(1, tower))
    plan = EditPlan((Scale(0, 0.0),), conditions=(condition,))
    with pytest.raises(InvalidEdit, match="needs a class set"):
        apply_edits(tower, tiny_sae(), state.x, [plan])
    with pytest.raises(InvalidEdit, match="needs a class set"):
        steered_embeddings(tower, state, tiny_sae(), [plan])


def test_the_latent_of_a_condition_is_looked_at_over_the_whole_image_also_out_of_scope() -> None:
    tower, sae = TinyTower(), tiny_sae()
    x = tower.prefix(tiny_images(1, tower)).x
    z = sae.encode(x)[0].detach()
    latent = int((z[1:].amax(0) - z[0]).argmax())  # stronger in a patch than in CLS
    threshold = 0.999 * float(z[:, latent].amax())
    assert float(z[0, latent]) < threshold
    plan = EditPlan((SetTo(1, 4.0),), Scope("cls"), (LatentCondition(latent, ">=", threshold),))
    assert apply_edits(tower, sae, x, [plan]).changed[0].tolist() == [True] + [False] * 9


def test_conditions_look_at_the_unedited_image_also_when_the_edit_is_on_the_same_latent() -> None:
    tower, sae = TinyTower(), tiny_sae()
    x = tower.prefix(tiny_images(1, tower)).x
    latent = int(sae.encode(x)[0].amax(0).argmax())
    plan = EditPlan((Scale(latent, 0.0),), conditions=(LatentCondition(latent, ">=", 0.1),))
    edited = apply_edits(tower, sae, x, [plan])
    assert edited.conditions_met.tolist() == [True]
    assert edited.z_edited.abs().max() == 0


def test_in_a_batch_each_row_is_steered_only_where_its_own_condition_holds() -> None:
    tower, sae, head = TinyTower(), tiny_sae(), tiny_head()
    state = tower.prefix(tiny_images(12, tower))
    before = head.logits(tower.suffix(state))
    predicted = before.argmax(1)
    assert len(set(predicted.tolist())) > 1
    name = head.class_names[int(predicted[0])]
    plan = EditPlan((SetTo(2, 3.0),), conditions=(PredictedClassCondition((name,)),))
    steered = steered_embeddings(tower, state, sae, [plan] * 12, readout=head, batch_size=5)
    expected = predicted == predicted[0]
    assert torch.equal(steered.conditions_met, expected)
    assert torch.equal(steered.changed, expected)
    assert torch.equal(steered.after[~expected], steered.before[~expected])
