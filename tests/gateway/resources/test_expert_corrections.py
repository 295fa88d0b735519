"""Corrections made of experts: which units, what becomes of them, and what is refused."""

import dataclasses
import json
from itertools import islice

import numpy as np
import pytest
import torch
from tests.gateway.resources.conftest import picture
from tests.gateway.resources.test_experts import FILLERS, FRAMES, WORDS, client, dataset, work, world
from tests.worker.workshop import QUICK

from fulcrum.cli.main import run as fulcrum
from fulcrum.client import Client
from fulcrum.datasets.concepts import image_examples
from fulcrum.datasets.expert_table import KIND, LINEAR, MOMENTS, ExpertTable
from fulcrum.datasets.index.array_file import open_array_file, write_array_file
from fulcrum.datasets.index.opening import open_linked_index
from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS, demo_model, demo_task
from fulcrum.domain.concept_sets import built_from_templates
from fulcrum.domain.edits import Add, Affine, Scale, Scope, SetTo
from fulcrum.domain.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    InvalidRequest,
    InvalidSettings,
    SaeDoesNotFit,
    UnknownExperts,
    UnknownSae,
)
from fulcrum.domain.experts import ExpertRule
from fulcrum.domain.identifiers import new_id
from fulcrum.domain.tasks import ClassSet
from fulcrum.science.experts.maps import set_to, transported
from fulcrum.science.responses.clip import tower_layers
from fulcrum.science.responses.unit_steering import steered
from fulcrum.science.vision.classes import encode_class_set, logits
from fulcrum.science.vision.images import decode_image
from fulcrum.science.vision.loading import load_model
from fulcrum.worker.datasets import dataset_opener
from fulcrum.worker.handlers.index_dataset import IndexDatasetHandler
from fulcrum.worker.handlers.validate_correction import ValidateCorrectionHandler
from fulcrum.worker.indexes import open_runs
from fulcrum.worker.machine import Machine
from fulcrum.worker.running import Runner

__all__ = ["client", "dataset", "work", "world"]


@pytest.fixture
def latents(lab, client, dataset, work):
    """A search among latents, on one split."""
    job = client.experts.find_latents(
        lab.sae["id"], dataset, ["label", "sticker_kind"], split="discover", name="stickers"
    )
    work()
    return client.experts.get(client.jobs.wait(job).result["experts_id"]).record


def table_of(lab, record):
    return ExpertTable.open(lab.platform.artifacts.local_path(record.sha256))


def put(unit):
    """What `set` makes of it: a latent that is silent for most examples of the concept is suppressed."""
    return SetTo(unit.unit, unit.on_p50) if unit.on_p50 else Scale(unit.unit, 0.0)


def edits_by_latent(client, saved):
    return {e.latent: e for e in client.corrections.version(saved).correction.edits}


def test_experts_are_set_damped_and_transported_as_the_formulas_say(lab, client, dataset, latents, world):
    concept = "sticker_kind=attack"
    best = list(client.experts.units(latents, concept))[:6]
    table = table_of(lab, latents)
    row = table.concept(concept)

    saved = client.experts.correct(latents, concept, "set", "as if it were there", k=6)
    content = client.corrections.version(saved).correction
    assert content.edits == tuple(put(u) for u in best)
    assert any(u.on_p50 for u in best)
    assert (saved.sae_id, saved.model_id) == (lab.sae["id"], lab.model["id"])
    assert content.hook_point == str(client.saes.get(saved.sae_id).info.hook_point)
    assert content.scope == Scope()
    assert content.task == ClassSet(dataset.class_names)

    half = edits_by_latent(client, client.experts.correct(latents, concept, "set", "half", k=6, strength=0.5))
    assert half == {
        u.unit: Affine(u.unit, 0.5, 0.5 * u.on_p50) if u.on_p50 else Scale(u.unit, 0.5) for u in best
    }

    damped = edits_by_latent(client, client.experts.correct(latents, concept, "damp", "less", k=6))
    for unit in best:
        assert unit.auroc > 0.5
        assert damped[unit.unit] == Scale(unit.unit, damped[unit.unit].gain)
        assert damped[unit.unit].gain == pytest.approx(1 - 2 * (unit.auroc - 0.5), abs=1e-6)

    moved = edits_by_latent(client, client.experts.correct(latents, concept, "transport_mean", "moved", k=6))
    carried = edits_by_latent(
        client, client.experts.correct(latents, concept, "transport_gaussian", "carried", k=6, strength=0.25)
    )
    for unit in best:
        on_mean, on_sd, off_sd = (
            float(table[name][row, unit.unit]) for name in ("on_mean", "on_sd", "off_sd")
        )
        assert moved[unit.unit] == Add(unit.unit, moved[unit.unit].value)
        assert moved[unit.unit].value == pytest.approx(on_mean - unit.off_mean, abs=1e-6)
        gain = on_sd / off_sd
        assert carried[unit.unit].gain == pytest.approx(1 + 0.25 * (gain - 1), rel=1e-5)
        assert carried[unit.unit].shift == pytest.approx(0.25 * (on_mean - gain * unit.off_mean), abs=1e-5)


def test_experts_go_away_from_a_concept_by_the_way_back(lab, client, latents):
    concept = "sticker_kind=attack"
    best = list(client.experts.units(latents, concept))[:6]
    table = table_of(lab, latents)
    row = table.concept(concept)

    def away(method):
        return edits_by_latent(
            client, client.experts.correct(latents, concept, method, method, k=6, towards="others")
        )

    kept, moved, carried = (away(method) for method in ("set", "transport_mean", "transport_gaussian"))
    for unit in best:
        on_mean, on_sd, off_sd = (
            float(table[name][row, unit.unit]) for name in ("on_mean", "on_sd", "off_sd")
        )
        assert kept[unit.unit] == SetTo(unit.unit, unit.off_mean)
        assert moved[unit.unit].value == pytest.approx(unit.off_mean - on_mean, abs=1e-6)
        gain = off_sd / on_sd
        assert carried[unit.unit].gain == pytest.approx(gain, rel=1e-5)
        assert carried[unit.unit].shift == pytest.approx(unit.off_mean - gain * on_mean, abs=1e-5)
    with pytest.raises(InvalidRequest, match="damp takes a concept away as it is"):
        away("damp")


def test_the_linear_transport_is_that_of_the_responses_themselves(
    lab, client, dataset, latents, world, tmp_path
):
    """Against `transported` on responses that are read from the index again."""
    concept = "sticker_kind=attack"
    best = list(islice(client.experts.units(latents, concept), 6))
    examples = image_examples(world, client.jobs.get(latents.job_id).job.spec)
    labels = examples.labels[examples.names.index(concept)]
    with lab.platform.store.read() as tx:
        found = tx.indexes.current(tx.datasets.get(dataset.id), latents.sae_id)
    index = open_linked_index(found.files, lab.platform.artifacts.local_path, tmp_path, found.key)
    responses = np.zeros((6, len(world)), dtype=np.float32)
    for row, unit in enumerate(best):
        images, values = index.image_max(unit.unit)
        responses[row, images] = values
    responses = responses[:, examples.numbers]
    off, on = responses[:, labels == 0], responses[:, labels == 1]
    for towards, source, target in (("concept", off, on), ("others", on, off)):
        wanted = transported(np.arange(6), source, target, "linear")
        saved = client.experts.correct(
            latents, concept, "transport_linear", f"line to {towards}", k=6, towards=towards
        )
        carried = edits_by_latent(client, saved)
        for row, unit in enumerate(best):
            assert carried[unit.unit].gain == pytest.approx(wanted.scale[row], rel=1e-9)
            assert carried[unit.unit].shift == pytest.approx(wanted.shift[row], rel=1e-9, abs=1e-12)
    with pytest.raises(InvalidSettings, match="kept for the 128 best units of a layer, and 200 of latents"):
        client.experts.correct(latents, concept, "transport_linear", "many", k=200)


def test_it_says_where_it_came_from_and_none_of_the_images_that_chose_it_can_prove_it(
    lab, client, latents, world
):
    concept = "sticker_kind=attack"
    saved = client.experts.correct(latents, concept, "damp", "less sticker", k=3, description="of stickers")
    version = client.corrections.version(saved)
    origin = version.correction.origin
    assert (origin.kind, origin.dataset_digest) == ("expert_search", latents.dataset_digest)
    assert latents.id in origin.note
    assert "3 experts of latents damped by how well they tell 'sticker_kind=attack'" in origin.note
    assert version.note == origin.note
    assert saved.description == "of stickers"
    spec = client.jobs.get(latents.job_id).job.spec
    examples = image_examples(world, spec)
    used = examples.numbers[examples.labels[examples.names.index(concept)] >= 0]
    assert set(origin.image_sha256) == {world.bytes_sha256[n] for n in used}
    confirm = {sha for sha, split in zip(world.bytes_sha256, world.splits, strict=True) if split == "confirm"}
    discover = {sha for sha, s in zip(world.bytes_sha256, world.splits, strict=True) if s == "discover"}
    assert set(origin.image_sha256) <= discover
    assert confirm - discover
    image = client.images.get(lab.image["id"])  # of a cup
    tried = client.steer(image, client.experts.correct(latents, "cup", "damp", "less cup"), n_controls=0)
    assert np.abs(tried.after.logits - tried.before.logits).max() > 0


def test_how_many_is_said_by_k_or_by_tau_and_twenty_are_taken_where_nothing_is_said(client, latents):
    best = list(client.experts.units(latents, "cup"))
    told = client.experts.correct(latents, "cup", "set", "twenty")
    assert [e.latent for e in client.corrections.version(told).correction.edits] == [
        u.unit for u in best[:20]
    ]
    with pytest.raises(InvalidRequest, match="exclude each other"):
        client.experts.correct(latents, "cup", "set", "both", k=3, tau=0.5)
    # Here some concepts have more examples than others.
    with pytest.raises(InvalidInput, match="across base rates"):
        client.experts.correct(latents, "cup", "set", "above", tau=0.3)


@pytest.mark.parametrize("method", ["transport_mean", "transport_gaussian", "transport_linear"])
def test_a_search_from_before_moments_were_kept_is_read_and_its_transports_are_refused(
    lab, client, latents, tmp_path, method
):
    new = open_array_file(lab.platform.artifacts.local_path(latents.sha256), KIND)
    path = tmp_path / "old.arrays"
    old = {name: array for name, array in new.arrays.items() if name not in MOMENTS | LINEAR}
    write_array_file(path, KIND, old, {"version": 1})
    before = dataclasses.replace(
        latents,
        id=new_id("exp"),
        key="0" * 64,
        sha256=lab.platform.artifacts.put_bytes(path.read_bytes()),
    )
    with lab.platform.store.write() as tx:
        tx.experts.add(before)
    assert next(client.experts.units(before, "cup")).unit == next(client.experts.units(latents, "cup")).unit
    client.experts.correct(before, "cup", "set", "an old search", k=2)
    with pytest.raises(Conflict, match="search again"):
        client.experts.correct(before, "cup", method, "an old search, moved")


def test_what_cannot_be_made_is_refused_with_words_and_leaves_nothing(lab, client, latents):
    with pytest.raises(UnknownExperts, match="no concept 'dragon'"):
        client.experts.correct(latents, "dragon", "set", "x")
    with pytest.raises(UnknownExperts, match=r"no layer 'visual\.blocks"):
        client.experts.correct(latents, "cup", "set", "x", layer="visual.blocks.0.mlp_in")
    place = f"/v1/experts/{latents.id}:correct"
    for wrong in ({"strength": 0}, {"method": "shout"}, {"k": 0}, {"tau": 1.0}):
        body = {"name": "x", "concept": "cup", "method": "set"} | wrong
        assert lab.client.post(place, json=body).status_code == 422
    viewer = lab.platform.as_user("viewer", "viewer")
    answer = viewer.post(place, json={"name": "x", "concept": "cup", "method": "set"})
    assert (answer.status_code, answer.json()["reason"]) == (403, "FORBIDDEN")
    stranger = lab.platform.as_user("stranger")
    answer = stranger.post(place, json={"name": "x", "concept": "cup", "method": "set"})
    assert answer.json()["reason"] == "UNKNOWN_EXPERTS"
    assert list(client.corrections.list()) == []
    assert len(list(client.saes.list())) == 1
    client.experts.correct(latents, "cup", "set", "x")
    with pytest.raises(AlreadyExists):
        client.experts.correct(latents, "cup", "damp", "x")


def test_other_weights_than_those_that_were_searched_are_refused(lab, client, latents):
    store = lab.platform.store
    with store.read() as tx:
        model, sae = tx.models.get(lab.model["id"]), tx.saes.get(lab.sae["id"])
    for kind, record, words in (("models", model, "the model 'demo'"), ("saes", sae, "the SAE 'demo'")):
        other = dataclasses.replace(record.info, weights_sha256="f" * 64)
        with store.write() as tx:
            getattr(tx, kind).update(record.id, None, info=other)
        with pytest.raises(SaeDoesNotFit, match=f"{words} has the weights ffffffffffff"):
            client.experts.correct(latents, "cup", "set", "x")
        with store.write() as tx:
            getattr(tx, kind).update(record.id, None, info=record.info)
    client.saes.delete(client.saes.get(sae.id))
    with pytest.raises(UnknownSae):
        client.experts.correct(latents, "cup", "set", "x")


def test_the_text_tower_is_not_steered(lab, client, work):
    built = built_from_templates("words", WORDS, 20, 40, frames=FRAMES, fillers=FILLERS)
    job = client.experts.find_in_sentences(lab.model["id"], built, sites=["resid_post"])
    work()
    search = client.jobs.wait(job).result["experts_id"]
    with pytest.raises(InvalidRequest, match="a correction acts in the vision tower"):
        client.experts.correct(search, "apple", "set", "x")


def test_the_command_saves_one(lab, client, latents, monkeypatch, capsys):
    monkeypatch.setenv("FULCRUM_CLIENT_URL", lab.platform.url)
    monkeypatch.setenv("FULCRUM_CLIENT_TOKEN", lab.platform.token_of(lab.platform.admin_user))

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            fulcrum(["experts", "correct", latents.id, "cup", *arguments])
        return ended.value.code, capsys.readouterr().out

    status, text = run("--method", "transport_mean", "--name", "more cup", "--k", "4", "--json")
    assert status == 0
    told = json.loads(text)
    assert told["correction"]["name"] == "more cup"
    assert len(told["version"]["correction"]["edits"]) == 4
    status, text = run("--method", "damp", "--name", "less cup", "--strength", "0.5")
    assert status == 0
    assert "damped by how well they tell 'cup', strength 0.5" in text
    assert "moved back by what 'cup'" in run("--method", "transport_mean", "--name", "no cup", "--away")[1]


@pytest.fixture
def units(lab, client, dataset, work):
    """A search among units of the vision tower, with one base rate."""
    job = client.experts.find_units(
        lab.model["id"], dataset, ["label", "sticker_kind"], split="discover", n_pos=5, n_neg=30
    )
    work()
    return client.experts.get(client.jobs.wait(job).result["experts_id"]).record


@pytest.mark.parametrize("site", ["mlp_in", "resid_post"])
def test_set_units_answer_as_the_open_clip_model_does_with_hooks_on_its_modules(lab, client, units, site):
    concept, layer = "sticker_kind=attack", f"visual.blocks.3.{site}"
    best = list(islice(client.experts.units(units, concept, layer=layer), 12))
    saved = client.experts.correct(units, concept, "set", site, layer=layer, k=12)
    content = client.corrections.version(saved).correction
    assert content.hook_point == layer
    assert content.edits == tuple(SetTo(u.unit, u.on_p50) for u in best)
    sae = client.saes.get(saved.sae_id)
    assert (sae.source, sae.state, sae.info.variant) == (f"units:{layer}", "ready", "units")

    tried = client.steer(client.images.get(lab.image["id"]), saved, demo_task(), sae=sae, n_controls=0)
    model = load_model(demo_model())
    pixels = model.preprocess([decode_image(picture())])
    modules = {x.name: x.module for x in tower_layers(model, "visual", (site,))}
    maps = set_to(np.array([u.unit for u in best]), np.array([u.on_p50 for u in best]))
    head = encode_class_set(model, demo_task())
    with torch.no_grad():
        plain = model.model.encode_image(pixels)
        with steered(modules, {layer: maps}):
            edited = model.model.encode_image(pixels)
    for found, embedding in ((tried.before, plain), (tried.after, edited)):
        assert found.logits == pytest.approx(logits(model, embedding, head)[0].detach().numpy(), abs=2e-4)
    assert np.abs(tried.after.logits - tried.before.logits).max() > 0.1


def test_units_above_a_threshold_are_taken_where_the_concepts_have_one_base_rate(client, units):
    layer = "visual.blocks.4.mlp_in"
    above = [u.unit for u in client.experts.units(units, "cup", layer=layer) if u.ap > 0.5]
    saved = client.experts.correct(units, "cup", "transport_mean", "above", layer=layer, tau=0.5)
    assert [e.latent for e in client.corrections.version(saved).correction.edits] == above
    assert above
    early = "visual.blocks.0.resid_post"
    most = next(client.experts.units(units, "cup", layer=early)).ap
    assert most < 1
    with pytest.raises(InvalidRequest, match=r"no unit of visual\.blocks\.0\.resid_post has an AP above"):
        client.experts.correct(units, "cup", "set", "x", layer=early, tau=most)
    with pytest.raises(InvalidSettings, match=r"k=900.0 must be a whole number in 1 \.\. 768"):
        client.experts.correct(units, "cup", "set", "x", layer=layer, k=900)


def test_the_units_of_a_layer_are_registered_once_by_whoever_corrects_first(lab, client, units):
    analyst = lab.platform.token_of(lab.platform.new_user("analyst", "analyst"))
    with Client(lab.platform.url, analyst) as colleague:
        first = colleague.experts.correct(units, "cup", "damp", "less cup", k=5)
        second = colleague.experts.correct(units, "cup", "transport_gaussian", "more cup", k=5)
    assert first.sae_id == second.sae_id
    of_units = [s for s in client.saes.list() if s.source.startswith("units:")]
    assert [s.id for s in of_units] == [first.sae_id]
    # Where nothing is said, the layer is the one in which most of the best lie.
    profile = client.experts.profile(units, "cup", ExpertRule("top_k", 5))
    most = max(share.n_experts for share in profile.layers)
    layer = of_units[0].source.removeprefix("units:")
    assert {share.layer: share.n_experts for share in profile.layers}[layer] == most
    edits = client.corrections.version(second).correction.edits
    assert {e.kind for e in edits} == {"affine"}
    tried = client.steer(client.images.get(lab.image["id"]), first, demo_task(), sae=first.sae_id)
    assert len(tried.effect.controls) > 0


def test_units_that_know_the_sticker_are_damped_and_mend_images_that_did_not_choose_them(
    lab, client, dataset, units, tmp_path
):
    saved = client.experts.correct(
        units, "sticker_kind=attack", "damp", "less of the word", layer="visual.blocks.5.mlp_in", k=150,
        strength=1.5, task=demo_task(),
    )  # fmt: skip
    asked = {"where": {"sticker_kind": "attack"}, "n_controls": 5}
    unseen = client.evaluations.validate(saved, dataset, split="select", **asked)
    seen = client.evaluations.validate(saved, dataset, split="discover", **asked)
    platform, opened = lab.platform, dataset_opener()
    machine = Machine(
        platform.store, platform.artifacts, tmp_path / "validating", folders={FOLDER_NAME: WEIGHTS}
    )
    handlers = {
        "index_dataset": IndexDatasetHandler(opened),
        "validate_correction": ValidateCorrectionHandler(open_runs(opened)),
    }
    Runner(machine, handlers, terms=QUICK).run_until_idle()
    done = client.jobs.wait(unseen)
    assert done.state == "succeeded", done.error
    numbers = client.evaluations.get(done.result["evaluation_id"]).record.numbers
    assert numbers["fixed"] > 3 * numbers["broken"]
    rows = {i.id for i in client.evaluations.images(done.result["evaluation_id"], outcome="fixed")}
    assert len(rows) == numbers["fixed"]
    # On the split that chose the units, the images that chose them are not judged.
    origin = client.corrections.version(saved).correction.origin.image_sha256
    ended = client.jobs.wait(seen)
    assert ended.state == "succeeded", ended.error
    reports = [client.evaluations.get(job.result["evaluation_id"]).report for job in (done, ended)]
    n = {split: len(list(client.datasets.images(dataset, split=split))) for split in ("select", "discover")}
    judged = [report["counted"]["evaluated"] for report in reports]
    assert judged[0] == n["select"]
    assert judged[1] <= n["discover"] - len(origin)  # nor are their twins
    assert len(origin) > 0
