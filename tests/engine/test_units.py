"""Units of a layer steered like latents, against hooks on the model itself."""

import numpy as np
import pytest
import torch

from fulcrum.demo.shipped import demo_model, demo_task
from fulcrum.domain.edits import Affine, Cap, LatentCondition, Scale, Scope, SetTo
from fulcrum.domain.errors import InvalidHookPoint, LatentOutOfRange, SaeDoesNotFit
from fulcrum.domain.models import ModelRef
from fulcrum.engine.dataset_controls import matched_latent_plans, random_direction_predictions
from fulcrum.engine.dataset_runs import DatasetRun
from fulcrum.engine.indexing import open_or_build_index
from fulcrum.science.responses.clip import tower_layers
from fulcrum.science.responses.unit_steering import UnitMaps, steered
from fulcrum.science.steering.edits import EditPlan
from fulcrum.science.vision.images import decode_image

TASK = demo_task()
SITES = ("resid_post", "mlp_in", "mlp_out")
EDITS = (Scale(3, 0.0), SetTo(5, 8.0), Affine(8, -0.5, 6.0))
MAPS = UnitMaps(np.array([3, 5, 8]), np.array([0.0, 0.0, -0.5]), np.array([0.0, 8.0, 6.0]))


@pytest.fixture(scope="module")
def pictures(small_world):
    return [small_world.read_bytes(sample) for sample in small_world.samples[:6]]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("block", [0, 2])
def test_an_edit_of_units_is_a_hook_on_the_layer(engine, pictures, site, block):
    name = f"visual.blocks.{block}.{site}"
    model, source = demo_model(), f"units:{name}"
    loaded = engine.residency.model(model)
    layers = {layer.name: layer for layer in tower_layers(loaded, "visual", (site,))}
    info = engine.load_sae(source, model)
    assert (info.variant, info.d_sae, info.d_in) == ("units", layers[name].n_units, layers[name].n_units)

    with torch.no_grad():
        pixels = loaded.preprocess([decode_image(picture) for picture in pictures])
        plain = torch.nn.functional.normalize(loaded.model.encode_image(pixels), dim=-1)
        with steered({name: layers[name].module}, {name: MAPS}):
            wanted = torch.nn.functional.normalize(loaded.model.encode_image(pixels), dim=-1)
    correction = engine.correction(model, source, EDITS, task=TASK)
    answers = engine.predict_steered(model, source, pictures, correction, TASK)
    head = engine.residency.head(model, TASK)
    for i, answer in enumerate(answers):
        np.testing.assert_allclose(answer.before.logits, head.logits(plain[i : i + 1])[0].numpy(), atol=2e-3)
        np.testing.assert_allclose(answer.after.logits, head.logits(wanted[i : i + 1])[0].numpy(), atol=2e-3)
        assert answer.changed
    assert np.abs(answers[0].before.logits - answers[0].after.logits).max() > 0.05
    effect = engine.steer(model, source, pictures[0], correction, TASK, n_controls=4)
    np.testing.assert_allclose(effect.after.logits, answers[0].after.logits, atol=2e-3)
    assert effect.diagnostics.reencode_error < 1e-4
    assert effect.diagnostics.fired == (True, True, True)


def test_attributions_of_units_add_up_as_those_of_latents_do(engine, pictures):
    """Measured ablations of single units are what steering them to 0 does."""
    source = "units:visual.blocks.2.mlp_out"
    found = engine.attribute(demo_model(), source, pictures[0], TASK, n_latents=5)
    for latent in found.latents[:3]:
        correction = engine.correction(demo_model(), source, (Scale(latent.latent, 0.0),), task=TASK)
        effect = engine.steer(
            demo_model(), source, pictures[0], correction, TASK, target=found.target, n_controls=0
        )
        change = effect.target_before - effect.target_after
        assert latent.measured_effect == pytest.approx(change, abs=1e-3)
    assert any(latent.max_activation < 0 or latent.score != 0 for latent in found.latents)


@pytest.fixture(scope="module", params=["visual.blocks.1.mlp_in", "visual.blocks.3.resid_post"])
def units_run(request, engine, small_world, tmp_path_factory):
    steerable = engine.residency.steerable(demo_model(), f"units:{request.param}")
    index = open_or_build_index(steerable, small_world, tmp_path_factory.mktemp("units"))
    head = engine.residency.head(demo_model(), TASK)
    return DatasetRun(steerable, head, TASK, small_world, index)


PLANS = {
    "scale": EditPlan((Scale(3, 0.0),)),
    "cap": EditPlan((Cap(3, 0.4),)),
    "cap at patches": EditPlan((Cap(3, 0.4),), Scope("patches")),
    "affine": EditPlan((Affine(8, -0.5, 0.75), SetTo(5, 1.5))),
    "where a unit is high": EditPlan((SetTo(5, 1.5),), conditions=(LatentCondition(3, ">=", 0.4),)),
    "patch list": EditPlan((Scale(3, 0.0),), Scope("patch_list", (0, 3))),
}


@pytest.mark.parametrize("kind", PLANS)
def test_a_data_set_gets_the_answers_of_the_naive_run(units_run, kind):
    numbers = np.flatnonzero(units_run.dataset.splits == "confirm")
    plan = PLANS[kind]
    fast = units_run.corrected_logits(plan, numbers)
    base, slow = units_run.naive_logits(plan, numbers)
    np.testing.assert_allclose(units_run.base_logits_of(numbers), base, atol=1e-4)
    np.testing.assert_allclose(fast, slow, atol=1e-4)
    assert (np.abs(slow - base).max(axis=1) > 1e-4).any()
    untouched = ~np.isin(numbers, units_run.affected(plan, numbers))
    assert (fast[untouched] == units_run.base_logits_of(numbers)[untouched]).all()
    if kind.startswith(("cap", "where")):
        assert 0 < untouched.sum() < len(numbers)


def test_controls_are_other_units_of_the_layer(units_run):
    numbers = np.flatnonzero(units_run.dataset.splits == "confirm")[:8]
    plan = EditPlan((Scale(3, 0.0), Affine(8, 0.5, 0.2)))
    drawn = matched_latent_plans(units_run, plan, 5, seed=0)
    assert len(drawn) == 5
    for other in drawn:
        assert not {e.latent for e in other.edits} & {3, 8}
        assert [e.kind for e in other.edits] == ["scale", "affine"]
    predicted = random_direction_predictions(units_run, plan, numbers, 3, seed=0)
    assert predicted.shape == (3, 8)


def test_what_is_no_layer_is_refused_by_name(engine, pictures):
    model = demo_model()
    with pytest.raises(InvalidHookPoint, match="malformed"):
        engine.load_sae("units:", model)
    with pytest.raises(InvalidHookPoint, match="does not exist"):
        engine.load_sae("units:visual.blocks.99.mlp_in", model)
    with pytest.raises(SaeDoesNotFit, match="vision tower only"):
        engine.load_sae("units:text.blocks.0.mlp_in", model)
    source = "units:visual.blocks.0.mlp_in"
    width = engine.load_sae(source, model).d_sae
    with pytest.raises(LatentOutOfRange, match=f"0 .. {width - 1}"):
        engine.predict_steered(
            model, source, pictures[:1], engine.correction(model, source, (Scale(width, 0.0),)), TASK
        )


def test_the_same_layer_of_other_weights_takes_no_correction_of_these(engine, pictures):
    source = "units:visual.blocks.0.mlp_in"
    other = ModelRef(demo_model().model_name, None, random_weights=True)
    correction = engine.correction(demo_model(), source, EDITS, task=TASK)
    with pytest.raises(SaeDoesNotFit):
        engine.steer(other, source, pictures[0], correction, TASK)
