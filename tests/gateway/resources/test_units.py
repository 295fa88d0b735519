"""Units of a layer over HTTP and in the SDK: registered, explained, steered, saved, and judged by a worker."""

import numpy as np
import pytest
from tests.gateway.resources.test_experts import client, dataset
from tests.worker.workshop import QUICK

from fulcrum.client import Affine, Scale, SetTo
from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS, demo_task
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.domain.corrections import from_dict, to_dict
from fulcrum.domain.errors import LatentOutOfRange, SaeDoesNotFit, UnknownSae
from fulcrum.worker.datasets import dataset_opener
from fulcrum.worker.handlers.index_dataset import IndexDatasetHandler
from fulcrum.worker.handlers.suggest_correction import SuggestCorrectionHandler
from fulcrum.worker.handlers.sweep_correction import SweepCorrectionHandler
from fulcrum.worker.handlers.validate_correction import ValidateCorrectionHandler
from fulcrum.worker.indexes import open_runs
from fulcrum.worker.machine import Machine
from fulcrum.worker.running import Runner

__all__ = ["client", "dataset"]
LAYER = "visual.blocks.3.mlp_out"
ATTACK = {"sticker_kind": "attack"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    n_pairs = {"discover": 24, "select": 24, "confirm": 8}
    folder = tmp_path_factory.mktemp("world")
    return load_dataset(write_demo_dataset(folder, n_pairs=n_pairs, n_right=4, n_neutral=4, n_cues=2))


@pytest.fixture
def work(lab, tmp_path):
    platform = lab.platform
    machine = Machine(
        platform.store, platform.artifacts, tmp_path / "scratch", folders={FOLDER_NAME: WEIGHTS}
    )
    opened = dataset_opener()
    open_run = open_runs(opened)
    handlers = {
        "index_dataset": IndexDatasetHandler(opened),
        "validate_correction": ValidateCorrectionHandler(open_run),
        "sweep_correction": SweepCorrectionHandler(open_run),
        "suggest_correction": SuggestCorrectionHandler(open_run),
    }
    return lambda: Runner(machine, handlers, terms=QUICK).run_until_idle()


@pytest.fixture
def units(lab, client):
    record = client.saes.create("units of block 3", lab.model["id"], f"units:{LAYER}")
    return client.saes.wait(record)


def test_units_are_explained_steered_saved_and_taken_home(lab, client, units):
    assert units.info is not None
    assert (units.info.variant, units.info.d_sae) == ("units", units.info.d_in)
    assert str(units.info.hook_point) == LAYER
    why = client.explain(lab.image["id"], demo_task(), sae=units, n_latents=5)
    assert len(why.latents) == 5
    first = why.latents[0].latent
    off = client.steer(why, Scale(first, 0.0))
    change = off.effect.target_before - off.effect.target_after
    assert why.latents[0].measured_effect == pytest.approx(change, abs=1e-3)
    edits = [Scale(first, 0.0), Affine(why.latents[1].latent, 0.5, -1.0), SetTo(why.latents[2].latent, 2.0)]
    answer = client.steer(why, edits)
    assert answer.effect.diagnostics.fired == (True, True, True)
    correction = answer.correction
    assert correction.hook_point == LAYER
    saved = client.corrections.create("units off", correction)
    content = client.corrections.version(saved, 1).correction
    assert content.sha256 == correction.sha256
    assert content.edits == tuple(edits)
    assert from_dict(to_dict(content)) == content
    again = client.steer(lab.image["id"], saved, sae=units)
    assert np.array_equal(again.effect.after.logits.argmax(), answer.effect.after.logits.argmax())
    np.testing.assert_allclose(again.effect.after.logits, answer.effect.after.logits, atol=2e-3)


def test_nobody_gets_units_who_did_not_name_them(lab, client, units):
    """The newest SAE is the default of every question: registering a layer must not change what others see."""
    assert client.saes.choose().id == lab.sae["id"]
    assert client.saes.choose("units of block 3").id == units.id
    assert client.explain(lab.image["id"], demo_task(), n_latents=1).sae.id == lab.sae["id"]


def test_a_correction_of_units_is_swept_and_validated_by_a_worker(lab, client, dataset, units, work):
    why = client.explain(lab.image["id"], demo_task(), sae=units, n_latents=2)
    edits = (Scale(why.latents[0].latent, 0.0), Affine(why.latents[1].latent, 0.5, 0.5))
    saved = client.corrections.create("two units", client.steer(why, list(edits)).correction)
    job = client.evaluations.validate(saved, dataset, where=ATTACK, n_controls=10)
    sweep = client.evaluations.sweep(saved, dataset, [0.0, 1.0, 2.0], where=ATTACK, n_controls=0)
    work()
    done = client.jobs.wait(job)
    assert done.state == "succeeded", done.error
    evaluation = client.evaluations.get(done.result["evaluation_id"])
    assert {c["n_controls"] for c in evaluation.report["controls"]} == {10}
    rows = client.evaluations.images(done.result["evaluation_id"])
    assert len(list(rows)) == len(dataset_of(client, dataset, "select"))
    swept = client.jobs.wait(sweep)
    assert swept.state == "succeeded", swept.error


def dataset_of(client, dataset, split):
    return [i for i in client.datasets.images(dataset) if i.split == split]


def test_a_group_that_fails_gets_a_correction_of_units(client, dataset, units, work):
    job = client.evaluations.suggest(dataset, units, ATTACK, max_edits=4, budget=40)
    work()
    done = client.jobs.wait(job)
    assert done.state == "succeeded", done.error
    found = client.corrections.suggested(done)
    assert found.hook_point == LAYER
    assert found.sae_sha256 == units.info.weights_sha256


def test_what_only_latents_have_is_refused_by_name(lab, client, dataset, units):
    with pytest.raises(SaeDoesNotFit, match=r"'units of block 3' are the units of a layer .* experts of"):
        client.latents.describe(units, dataset)
    with pytest.raises(SaeDoesNotFit, match="among the units of the model's vision tower"):
        client.experts.find_latents(units, dataset, columns=["label"])
    with pytest.raises(LatentOutOfRange, match="do not exist"):
        client.steer(lab.image["id"], Scale(10_000, 0.0), demo_task(), sae=units)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("units:visual.blocks.99.mlp_in", "does not exist"),
        ("units:text.blocks.0.mlp_in", "vision tower only"),
        ("units:../../etc", "malformed"),
        ("units:", "malformed"),
    ],
)
def test_a_layer_that_is_none_says_so(lab, client, source, match):
    record = client.saes.create("none", lab.model["id"], source)
    with pytest.raises(UnknownSae, match=match):
        client.saes.wait(record)
