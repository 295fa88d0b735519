"""`find_experts` as a job: latents, units of the vision tower and of the text tower, on the demo model."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from fulcrum.datasets.concepts import image_examples
from fulcrum.datasets.expert_table import ExpertTable
from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.domain.concept_files import PairRatings, TripletChoices, judgements_bytes
from fulcrum.domain.concept_sets import built_from_templates, concept_set_bytes
from fulcrum.domain.errors import InvalidInput, InvalidSettings, ServiceUnavailable, UnknownExperts
from fulcrum.domain.experts import ExpertRule
from fulcrum.domain.jobs import FindExperts, ImageConcept, IndexDataset, RatingsFile, Where
from fulcrum.engine.image_batches import image_batches
from fulcrum.worker.datasets import dataset_opener
from fulcrum.worker.handlers.find_experts import FindExpertsHandler
from fulcrum.worker.handlers.index_dataset import IndexDatasetHandler

SMALL = {"discover": 36, "select": 12, "confirm": 24}
WORDS = {"animals": ("dog", "cat", "fish"), "things": ("cup", "car", "key")}
FRAMES = ("{adjective} {word}", "{a} {word} {place}", "my {adjective} {word} {place}")
FILLERS = {"adjective": ("big", "red", "old", "new"), "place": ("here", "there", "at home", "in a box")}


@pytest.fixture(scope="module")
def small_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return load_dataset(write_demo_dataset(folder, n_pairs=SMALL, n_right=6, n_neutral=6, n_cues=2, seed=5))


@pytest.fixture
def lab(workshop, small_world):
    return Lab(workshop, small_world)


class Lab:
    """The demo model and SAE, and a registered world."""

    def __init__(self, workshop, world):
        self.shop, self.world = workshop, world
        self.sae = workshop.add_demo_sae()
        self.model_id = self.sae.model_id
        self.dataset = workshop.add_dataset(world)
        opened = dataset_opener()  # one that holds nothing of another test's store
        self.handlers = {
            "index_dataset": IndexDatasetHandler(opened),
            "find_experts": FindExpertsHandler(opened),
        }

    def spec(self, units, **fields):
        given = {"dataset_id": self.dataset.id} if units != "text" else {}
        if units == "latents":
            given["sae_id"] = self.sae.id
        return FindExperts(units, self.model_id, **{**given, **fields})

    def index(self):
        job = self.shop.run(self.shop.submit(IndexDataset(self.dataset.id, self.sae.id)), self.handlers)
        assert job.state == "succeeded", job.error

    def find(self, units, **fields):
        return self.shop.run(self.shop.submit(self.spec(units, **fields)), self.handlers)

    def found(self, units, **fields):
        job = self.find(units, **fields)
        assert job.state == "succeeded", job.error
        with self.shop.store.read() as tx:
            record = tx.experts.get(job.result["experts_id"])
        return job, record, ExpertTable.open(self.shop.artifacts.local_path(record.sha256))

    def stored(self, concept_set):
        return self.shop.artifacts.put_bytes(concept_set_bytes(concept_set))


def test_experts_among_latents_are_those_of_sklearn_on_the_image_maxima(lab, small_world):
    lab.index()
    job, record, table = lab.found("latents", columns=("label", "sticker_kind"))
    examples = image_examples(small_world, lab.spec("latents", columns=("label", "sticker_kind")))
    assert [c.name for c in table.about.concepts] == list(examples.names)
    assert (record.units, record.n_units, record.sae_id) == ("latents", table.n_units, lab.sae.id)
    machine = lab.shop.machine
    steerable = machine.engine.residency.steerable(*machine.sae(lab.shop.project.id, lab.sae.id))
    responses = []
    for batch in image_batches(steerable.loaded, small_world, examples.numbers):
        x = steerable.tower.prefix(batch.pixels).x[: len(batch.numbers)]
        responses.append(steerable.sae.encode(x).amax(dim=1).detach().numpy())
    responses = np.concatenate(responses)
    row = table.concept("sticker_kind=attack")
    for latent in [table.units("sticker_kind=attack", "ap", True, None, 0, 1)[0].unit, 3, 11]:
        used = examples.labels[row] >= 0
        truth = examples.labels[row][used] == 1
        found = table["ap"][0, row, latent], table["auroc"][row, latent]
        expected = (
            average_precision_score(truth, responses[used, latent]),
            roc_auc_score(truth, responses[used, latent]),
        )
        assert found == pytest.approx(expected, abs=1e-6)
    best = table.about.concepts[row]
    assert best.best_ap > best.base_rate + 0.2
    assert (
        job.n_shards == len(examples.numbers) // 256 + 1
    )  # of random weights alone: the index has the others


def test_the_vision_tower_has_experts_of_objects_in_every_layer_beside_random_weights(lab):
    _, record, table = lab.found("vision", columns=("label",), n_pos=12, n_neg=60)
    assert table.about.one_base_rate
    names = [layer.name for layer in table.about.layers]
    assert names[:2] == ["visual.blocks.0.resid_post", "visual.blocks.0.mlp_in"]
    assert len(names) == 12
    assert table.n_units == 6 * (192 + 768) == record.n_units
    ap = np.mean([c.best_ap for c in table.about.concepts])
    assert ap > np.mean([c.control_best_ap for c in table.about.concepts]) + 0.1
    counts = table.counts(ExpertRule("tau", 0.8))
    assert sum(c.n_experts for c in counts) > 3 * sum(c.control for c in counts)
    profile = table.profile("cup", ExpertRule("top_k", 50.0))
    assert sum(share.n_experts for share in profile.layers) == 50
    assert sum(share.control_n_experts for share in profile.layers) == 50
    spread = table.distribution("cup")
    assert sum(spread.counts) == sum(spread.control) == table.n_units


def test_the_text_tower_tells_words_apart_and_another_search_runs_no_sentence_again(lab):
    built = built_from_templates(
        "small", WORDS, 20, 40, frames=FRAMES, fillers=FILLERS, negatives="other_domains", seed=1
    )
    job, record, table = lab.found("text", concept_set_sha256=lab.stored(built))
    assert {layer.name for layer in table.about.layers} == {
        f"text.blocks.{b}.{site}" for b in (0, 1) for site in ("resid_post", "mlp_in")
    }
    assert record.n_examples == len(built.sentences)
    assert all(c.best_ap > 0.8 for c in table.about.concepts)
    # Random weights have units as good: the number of experts says nothing about learning.
    assert max(c.control_best_ap for c in table.about.concepts) > 0.9
    assert [c.domain for c in table.about.concepts] == ["animals"] * 3 + ["things"] * 3
    again, same, _ = lab.found("text", concept_set_sha256=lab.stored(built), name=record.name)
    assert (again.n_shards_reused, same.id) == (job.n_shards, record.id)
    assert again.result == job.result


def test_structure_is_never_without_random_weights_and_baselines(lab):
    lab.index()
    _, record, table = lab.found("latents", columns=("label", "sticker_word"), n_pos=5, n_neg=30)
    about = table.about
    assert {s.of for s in about.summaries if s.rule is None} == {
        "mean_activation", "mean_embedding", "bare_word"
    }  # fmt: skip
    for rule in about.rules:
        found = table.structures(rule)
        assert (found.experts.of, found.random_weights.of) == ("experts", "random_weights")
        assert found.experts.rule == rule
        assert sorted(found.experts.order) == list(range(len(about.concepts)))
        assert len(found.baselines) == 3
        assert found.experts.agreement is not None
    assert {"ari_experts", "ari_random_weights", "ari_bare_word"} <= set(record.numbers)
    with pytest.raises(UnknownExperts, match="structure was computed for the rules top_k 10"):
        table.structures(ExpertRule("top_k", 11.0))


def test_thresholds_across_base_rates_are_refused_and_the_best_k_are_not(lab):
    lab.index()
    job, _, table = lab.found("latents", columns=("sticker_kind",))
    assert not table.about.one_base_rate
    assert {r.rule for r in table.about.rules} == {"top_k", "cosine_auroc"}
    with pytest.raises(InvalidInput, match="cannot be compared across base rates"):
        table.counts(ExpertRule("tau", 0.5))
    with pytest.raises(InvalidInput, match="cannot be compared across base rates"):
        table.structures(ExpertRule("cosine_ap"))
    assert {c.n_experts for c in table.counts(ExpertRule("top_k", 7.0))} == {7}
    with pytest.raises(InvalidSettings, match="must be a whole number"):
        table.counts(ExpertRule("top_k", 0.5))
    assert any("different base rates" in line for line in lab.shop.log(job))


def test_a_search_that_was_interrupted_goes_on_to_the_same_file(lab, monkeypatch):
    asked = {"columns": ("label",), "sites": ("resid_post",)}
    _, undisturbed, _ = lab.found("vision", **asked)
    with lab.shop.store.write() as tx:
        keys = list(tx.job_tasks.results(undisturbed.job_id))
        for result in keys:
            tx.job_tasks.forget_result(result.shard.key)
    handler, calls = FindExpertsHandler, []
    run_shard = handler.run_shard

    def failing(self, work, shard):
        calls.append(shard.key)
        if len(calls) == 2:
            raise ServiceUnavailable("the machine is gone", 0.0)
        return run_shard(self, work, shard)

    monkeypatch.setattr(handler, "run_shard", failing)
    _, record, _ = lab.found("vision", **asked, name="again")
    assert len(calls) == len(keys) + 1
    assert record.sha256 == undisturbed.sha256


def test_units_and_the_concepts_of_a_unit_say_the_same(lab):
    lab.index()
    _, _, table = lab.found("latents", columns=("label",), concepts=(
        ImageConcept("any sticker", (Where("sticker", "word"),), domain="sticker"),
    ))  # fmt: skip
    first = table.units("any sticker", "ap", True, None, 0, 3)
    assert [u.rank for u in first] == [1, 2, 3]
    told = {u.concept: u for u in table.concepts_of_unit(first[0].number)}
    assert told["any sticker"] == first[0]
    assert (
        table.units("any sticker", "auroc", False, "latents", 0, 1)[0].auroc
        == table["auroc"][table.concept("any sticker")].min()
    )
    with pytest.raises(UnknownExperts, match="no concept 'dragon'"):
        table.units("dragon", "ap", True, None, 0, 1)
    with pytest.raises(UnknownExperts, match="no layer"):
        table.units("any sticker", "ap", True, "visual.blocks.0.mlp_in", 0, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"columns": ("colour_of_the_sky",)}, "INVALID_DATASET: no column 'colour_of_the_sky'"),
        ({"concepts": (ImageConcept("x", (Where("label", "dragon"),)),)}, "has label 'dragon': there is"),
        (
            {"concepts": (ImageConcept("x", (Where("sticker", "word"),)),), "n_pos": 10_000},
            "10000 are asked for",
        ),
        ({"concepts": (ImageConcept("x", ()),)}, "concept 'x' has no condition"),
        ({"columns": ("label",), "n_pos": 10_000}, "12 values have fewer images than are needed or asked for"),
        ({}, "0 concepts"),
        (
            {"concepts": (ImageConcept("x", (Where("sticker", "word"),)),), "among": (Where("sticker", "word"),)},
            "positive and 0 negative examples",
        ),
        ({"columns": ("label", "label")}, "two concepts are called"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_concept_ends_the_job_with_words(lab, fields, words):
    lab.index()
    job = lab.find("latents", **fields)
    assert job.state == "failed"
    assert words in job.error


def test_what_people_say_is_compared_with_experts_random_weights_and_baselines(lab):
    built = built_from_templates(
        "small", WORDS, 20, 40, frames=FRAMES, fillers=FILLERS, negatives="other_domains", seed=1
    )
    names = [c.name for c in built.concepts]
    domain = {c.name: c.domain for c in built.concepts}
    pairs = tuple((a, b) for i, a in enumerate(names) for b in names[:i])
    alike = [5.0 * (domain[a] == domain[b]) + 0.1 * i for i, (a, b) in enumerate(pairs)]
    rng = np.random.default_rng(0)
    raters = tuple(tuple((r + rng.normal(0, 1, 4)).tolist()) for r in alike)
    judged = [
        PairRatings("mine", pairs, tuple(float(np.mean(r)) for r in raters), raters),
        TripletChoices("odd", (("dog", "cat", "cup"), ("car", "key", "fish"))),
    ]
    files = tuple(RatingsFile(j.name, lab.shop.artifacts.put_bytes(judgements_bytes(j))) for j in judged)
    first, plain, _ = lab.found("text", concept_set_sha256=lab.stored(built))
    job, record, table = lab.found("text", concept_set_sha256=lab.stored(built), ratings=files)
    assert job.n_shards_reused == first.n_shards
    assert record.id != plain.id
    mine, odd = table.about.alignments
    assert (mine.kind, mine.n_used, odd.kind, odd.n_used) == ("pairs", 15, "triplets", 2)
    of = {(c.of, c.rule): c for c in mine.correlations}
    for rule in (ExpertRule("cosine_ap"), table.about.shown_rule):
        assert {("experts", rule), ("random_weights", rule)} <= set(of)
    assert {("mean_activation", None), ("mean_embedding", None), ("bare_word", None)} <= set(of)
    assert all(c.n_pairs == 15 and c.ci_low <= c.ci_high for c in of.values())
    assert {c.name for c in mine.ceilings} == {"leave_one_out", "pairwise", "split_half_spearman_brown"}
    assert all(0 <= t.accuracy <= 1 for t in odd.triplets)
