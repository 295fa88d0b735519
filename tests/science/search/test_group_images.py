"""HeldGroup against the naive re-run of every image under every edit set."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.science.tiny import TinyTower, tiny_head, tiny_images, tiny_sae

from fulcrum.domain.edits import Add, Edit, ProjectOut, Scale, Scope
from fulcrum.domain.errors import EditCannotReachOutput, InvalidDataset, InvalidSettings
from fulcrum.science.attribution.act_x_grad import act_x_grad
from fulcrum.science.search.group import group_search
from fulcrum.science.search.group_images import HeldGroup
from fulcrum.science.steering.edits import EditPlan, apply_edits
from fulcrum.science.vision.split import HookState

TOWER = TinyTower(block=1)
SAE = tiny_sae(bias=-1.5)
HEAD = tiny_head()
N = 24
STATE = TOWER.prefix(tiny_images(N, TOWER))
PREDICTED = HEAD.logits(TOWER.suffix(STATE)).argmax(1).numpy()
IN_GROUP = np.arange(N) % 3 == 0
LABELS = np.where(IN_GROUP, (PREDICTED + 1) % 3, PREDICTED)


def held(**options) -> HeldGroup:
    return HeldGroup(TOWER, SAE, STATE, HEAD, LABELS, IN_GROUP, **options)


def naive_margins(edits: tuple[Edit, ...], scope: Scope | None = None) -> np.ndarray:
    x = apply_edits(TOWER, SAE, STATE.x, [EditPlan(edits, scope or Scope())] * N).x
    logits = HEAD.logits(TOWER.suffix(STATE.with_x(x))).detach().numpy()
    own = logits[np.arange(N), LABELS]
    logits[np.arange(N), LABELS] = -np.inf
    return own - logits.max(1)


edit_sets = st.lists(
    st.lists(st.integers(0, 19), max_size=4, unique=True).map(lambda ns: tuple(Scale(n, 0.0) for n in ns)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(edit_sets, min_size=1, max_size=3), st.sampled_from([Scope(), Scope("cls"), Scope("patches")])
)
def test_answers_equal_those_of_running_every_image_again(batches, scope: Scope) -> None:
    group = held(scope=scope, batch_size=7)
    for batch in batches:
        found = group(batch)
        for i, edits in enumerate(batch):
            margins = naive_margins(edits, scope)
            np.testing.assert_array_equal(found.group_correct[i], margins[IN_GROUP] > 0)
            np.testing.assert_array_equal(found.clean_correct[i], margins[~IN_GROUP] > 0)
            assert found.group_margin is not None
            assert found.group_margin[i] == pytest.approx(margins[IN_GROUP].mean())


@pytest.mark.parametrize("edit", [Add(2, 1.0), ProjectOut(2)])
def test_edits_that_act_everywhere_are_run_on_every_image(edit: Edit) -> None:
    margins = naive_margins((edit, Scale(5, 0.0)))
    found = held()([(edit, Scale(5, 0.0))])
    np.testing.assert_array_equal(found.clean_correct[0], margins[~IN_GROUP] > 0)
    np.testing.assert_allclose(found.group_margin, margins[IN_GROUP].mean())


def test_the_unedited_group_fails_and_the_clean_images_are_right() -> None:
    found = held()([()])
    assert not found.group_correct.any()
    assert found.clean_correct.all()


def test_only_images_in_which_an_edit_fires_are_run_and_none_twice() -> None:
    group = held()
    fires = (SAE.encode(STATE.x).amax(1) > 0).numpy()
    latent = int(np.argmin(np.where(fires.sum(0) > 0, fires.sum(0), N + 1)))
    n_fires = int(fires[:, latent].sum())
    assert 0 < n_fires < N
    TOWER.n_suffix_rows = 0
    group([(Scale(latent, 0.0),)])
    assert TOWER.n_suffix_rows == n_fires
    group([(Scale(latent, 0.0),), ()])
    assert TOWER.n_suffix_rows == n_fires
    other = next(n for n in range(20) if n != latent and fires[:, n].any())
    group([(Scale(other, 0.0),)])
    TOWER.n_suffix_rows = 0
    group([(Scale(other, 0.0), Scale(latent, 0.0)), (Scale(latent, 0.0), Scale(other, 0.0))])
    assert TOWER.n_suffix_rows == int((fires[:, latent] & fires[:, other]).sum())


def test_candidates_are_ranked_by_mean_estimated_gain_over_the_failing_images_net_of_harm() -> None:
    def effects(images: np.ndarray, edits: tuple[Edit, ...]) -> np.ndarray:
        out = np.zeros((len(images), 20))
        z = SAE.encode(STATE.x).detach()
        x = apply_edits(TOWER, SAE, STATE.x, [EditPlan(edits)] * N).x
        for i, image in enumerate(images):
            one = x[image : image + 1].detach().requires_grad_()
            logits = HEAD.logits(TOWER.suffix(HookState(one)))[0]
            others = [c for c in range(3) if c != LABELS[image]]
            (gradient,) = torch.autograd.grad(logits[LABELS[image]] - logits[others].amax(), one)
            along = gradient[0] @ SAE.directions(torch.arange(20)).T.detach()
            out[i] = -(z[image] * along).sum(0).numpy()
        return out

    edits = (Scale(3, 0.0),)
    failing = np.array([0, 2, 5])
    gain = effects(np.flatnonzero(IN_GROUP)[failing], edits).mean(0)
    harm = np.maximum(0, -effects(np.flatnonzero(~IN_GROUP), ())).mean(0)
    for weight in (0.0, 1.0, 2.5):
        net = gain - weight * harm
        expected = sorted((n for n in range(20) if gain[n] > 1e-12 and n != 3), key=lambda n: -net[n])
        found = held(clean_weight=weight, batch_size=2).rank(edits, failing)
        assert [e.latent for e in found] == expected
        assert all(isinstance(e, Scale) and e.gain == 0.0 for e in found)


def test_ranking_of_a_single_failing_image_is_that_of_its_attribution() -> None:
    image = int(np.flatnonzero(IN_GROUP)[1])
    group = held(clean_weight=0.0)
    ranked = [e.latent for e in group.rank((), np.array([1]))]
    scores = act_x_grad(TOWER, STATE.rows(slice(image, image + 1)), SAE, group._margins(np.array([image])))
    latents, values = scores.of_image()
    assert ranked == [n for n, v in zip(latents.tolist(), values.tolist(), strict=True) if v < 0]


def test_no_failing_images_give_no_candidates() -> None:
    assert held().rank((), np.array([], dtype=int)) == []


def test_a_planted_attack_is_traced_to_its_latents_and_mended_without_clean_loss() -> None:
    """Clean twins and attacked ones, into which the directions of latents 4 and 11 were written."""
    sae = tiny_sae(bias=-3.0)
    clean = TOWER.prefix(tiny_images(60, TOWER)).x.detach()
    attacked = clean.clone()
    for i in range(60):
        attacked[i, :4] += 8 * sae.directions(torch.tensor([4 if i % 2 else 11]))[0].detach()
    right = HEAD.logits(TOWER.suffix(HookState(clean))).argmax(1).numpy()
    fooled = HEAD.logits(TOWER.suffix(HookState(attacked))).argmax(1).numpy() != right
    assert fooled.sum() > 15
    state = HookState(torch.cat([clean, attacked[fooled]]))
    labels = np.concatenate([right, right[fooled]])
    marks = np.arange(len(labels)) >= 60
    group = HeldGroup(TOWER, sae, state, HEAD, labels, marks)
    found = group_search(group, group.rank)
    assert {4, 11} <= {e.latent for e in found.edits}
    assert found.group_accuracy_before == 0
    assert found.group_accuracy_after > 0.6
    assert found.clean_accuracy_after > 0.99
    # What the search says is what running every image again says.
    x = apply_edits(TOWER, sae, state.x, [EditPlan(found.edits)] * len(labels)).x
    correct = HEAD.logits(TOWER.suffix(HookState(x))).argmax(1).numpy() == labels
    assert found.group_accuracy_after == pytest.approx(correct[marks].mean())
    assert found.clean_accuracy_after == pytest.approx(correct[~marks].mean())


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidDataset, match="24 labels and marks"):
        HeldGroup(TOWER, SAE, STATE, HEAD, LABELS[:-1], IN_GROUP)
    with pytest.raises(InvalidDataset, match=r"0 \.\. 2"):
        HeldGroup(TOWER, SAE, STATE, HEAD, LABELS + 1, IN_GROUP)
    with pytest.raises(InvalidDataset, match="two classes"):
        HeldGroup(TOWER, SAE, STATE, tiny_head(1), LABELS * 0, IN_GROUP)
    with pytest.raises(InvalidSettings, match="gain of 1"):
        held(gain=1.0)
    with pytest.raises(EditCannotReachOutput):
        HeldGroup(TinyTower(2), SAE, STATE, HEAD, LABELS, IN_GROUP, scope=Scope("patches"))
