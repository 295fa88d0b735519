"""Experts over HTTP and in the SDK: asked for, found by a worker, looked at from all sides."""

import json
import threading

import pytest
from tests.worker.language_models import save_causal
from tests.worker.workshop import QUICK, stored_dataset

from fulcrum.cli.main import run as fulcrum
from fulcrum.client import Client
from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.domain.concept_files import SentenceLists, read_ratings_csv, write_concepts_csv
from fulcrum.domain.concept_sets import built_from_templates
from fulcrum.domain.errors import (
    InvalidInput,
    InvalidPrompt,
    InvalidRequest,
    UnknownDataset,
    UnknownExperts,
    UnknownModel,
)
from fulcrum.domain.experts import ExpertRule
from fulcrum.domain.jobs import ImageConcept, Where
from fulcrum.worker.datasets import dataset_opener
from fulcrum.worker.handlers.find_experts import FindExpertsHandler
from fulcrum.worker.handlers.index_dataset import IndexDatasetHandler
from fulcrum.worker.machine import Machine
from fulcrum.worker.running import Runner

WORDS = {"fruit": ("apple", "banana"), "vehicle": ("boat", "car"), "thing": ("cup", "key")}
FRAMES = ("{adjective} {word}", "{a} {word} {place}", "my {adjective} {word} {place}")
FILLERS = {"adjective": ("big", "red", "old", "new"), "place": ("here", "there", "at home", "in a box")}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    n_pairs = {"discover": 36, "select": 36, "confirm": 12}
    return load_dataset(
        write_demo_dataset(
            tmp_path_factory.mktemp("world"), n_pairs=n_pairs, n_right=6, n_neutral=6, n_cues=2
        )
    )


@pytest.fixture
def dataset(lab, world):
    platform = lab.platform
    record = stored_dataset(world, platform.artifacts, platform.project.id, platform.admin_user.id)
    with platform.store.write() as tx:
        return tx.datasets.add(record)


@pytest.fixture
def client(lab):
    with Client(lab.platform.url, lab.platform.token_of(lab.platform.admin_user)) as client:
        yield client


@pytest.fixture
def work(lab, tmp_path):
    platform = lab.platform
    folders = {FOLDER_NAME: WEIGHTS, "lab": tmp_path}
    machine = Machine(platform.store, platform.artifacts, tmp_path / "scratch", folders=folders)
    opened = dataset_opener()
    handlers = {"index_dataset": IndexDatasetHandler(opened), "find_experts": FindExpertsHandler(opened)}
    return lambda: Runner(machine, handlers, terms=QUICK).run_until_idle()


def test_experts_among_latents_are_asked_for_found_and_looked_at_from_all_sides(lab, client, dataset, work):
    sticker = ImageConcept("any sticker", (Where("sticker", "word"),), domain="sticker")
    asked = {"columns": ["label"], "concepts": [sticker], "n_pos": 8, "n_neg": 40, "name": "objects"}
    job = client.experts.find_latents(lab.sae["id"], dataset, **asked)
    assert client.experts.find_latents(lab.sae["id"], dataset, **asked).id == job.id
    work()
    job = client.jobs.wait(job)
    assert job.state == "succeeded", job.error
    (record,) = client.experts.list(sae=lab.sae["id"], units="latents")
    assert (record.id, record.name, record.job_id) == (job.result["experts_id"], "objects", job.id)
    found = client.experts.get(record)
    assert found.record == record
    assert len(found.concepts) == record.n_concepts == 13
    assert found.one_base_rate
    everyone = list(client.experts.units(record, "any sticker"))
    assert len(everyone) == record.n_units
    assert [u.rank for u in everyone] == list(range(1, len(everyone) + 1))
    best = everyone[0]
    concept = next(c for c in found.concepts if c.name == "any sticker")
    assert (best.ap, best.unit, best.layer) == (concept.best_ap, concept.best_unit, "latents")
    client.concepts.put(lab.sae["id"], best.unit, "a written word")
    assert next(client.experts.units(record, "any sticker")).label == "a written word"
    mine = client.experts.unit(record, best.number)
    assert {u.concept: u.ap for u in mine}["any sticker"] == best.ap
    assert len(mine) == 13
    above = {c.concept: c for c in client.experts.counts(record, ExpertRule("tau", 0.6))}
    assert above["any sticker"].n_experts == sum(u.ap > 0.6 for u in everyone)
    profile = client.experts.profile(record, "any sticker", ExpertRule("top_k", 3))
    assert [share.n_experts for share in profile.layers] == [3]
    assert sum(client.experts.distribution(record, "cup").counts) == record.n_units
    shown = client.experts.structure(record)
    assert shown.experts.rule == found.shown_rule
    assert len(shown.experts.similarity) == len(shown.concepts) == len(shown.experts.x) == 13
    assert {b.of for b in shown.baselines} == {"mean_activation", "mean_embedding", "bare_word"}
    assert shown.random_weights.similarity != shown.experts.similarity


def test_the_command_asks_and_shows_the_same(lab, client, dataset, work, monkeypatch, capsys):
    job = client.experts.find_latents(lab.sae["id"], dataset, ["label"])
    work()
    monkeypatch.setenv("FULCRUM_CLIENT_URL", lab.platform.url)
    monkeypatch.setenv("FULCRUM_CLIENT_TOKEN", lab.platform.token_of(lab.platform.admin_user))

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            fulcrum(["experts", *arguments])
        return ended.value.code, capsys.readouterr().out

    status, text = run("find", "--dataset", dataset.id, "--sae", lab.sae["id"], "--column", "label", "--json")
    assert status == 0
    found = json.loads(text)
    assert found["record"]["id"] == client.jobs.get(job).job.result["experts_id"]
    units = json.loads(run("units", found["record"]["id"], "cup", "--limit", "2", "--json")[1])["units"]
    assert [u["rank"] for u in units] == [1, 2]
    assert "random_weights" in run("show", found["record"]["id"])[1]
    assert len(json.loads(run("list", "--json")[1])["experts"]) == 1
    status, text = run("find", "--dataset", dataset.id, "--column", "label", "--json")
    assert status == 2
    assert "either --sae" in json.loads(text)["error"]["message"]


def test_two_searches_over_other_images_of_the_same_concepts_are_compared(lab, client, dataset, work):
    jobs = [
        client.experts.find_units(lab.model["id"], dataset, ["label"], sites=["resid_post"], split=split)
        for split in ("discover", "select")
    ]
    jobs.append(
        client.experts.find_in_sentences(
            lab.model["id"], built_from_templates("words", WORDS, 20, 40, frames=FRAMES, fillers=FILLERS)
        )
    )
    work()
    ids = [client.jobs.wait(job).result["experts_id"] for job in jobs]
    rule = ExpertRule("top_k", 20)
    found = client.experts.stability(ids[0], ids[1], rule)
    assert (found.n_concepts, len(found.overlaps)) == (12, 12)
    assert found.mean_overlap > found.different
    same = client.experts.stability(ids[0], ids[0], rule)
    assert (same.mean_overlap, same.rho) == (1.0, pytest.approx(1.0))
    words = client.experts.stability(ids[2], ids[0], rule)
    assert words.overlaps == ()
    assert words.n_concepts == 6
    texts = client.experts.get(ids[2])
    assert texts.record.name == "words"
    assert texts.record.dataset_id is None
    assert {c.domain for c in texts.concepts} == set(WORDS)
    asked = client.experts.concept_set(ids[2])
    assert asked == built_from_templates("words", WORDS, 20, 40, frames=FRAMES, fillers=FILLERS)
    with pytest.raises(UnknownExperts, match="over images"):
        client.experts.concept_set(ids[0])
    stranger = lab.platform.as_user("stranger").get(f"/v1/experts/{ids[2]}/concept-set")
    assert stranger.json()["reason"] == "UNKNOWN_EXPERTS"


def test_questions_that_cannot_be_meant_are_refused_at_once(lab, client, dataset):
    with pytest.raises(InvalidRequest, match="there is no concept"):
        client.experts.find_latents(lab.sae["id"], dataset)
    with pytest.raises(UnknownDataset):
        client.experts.find_latents(lab.sae["id"], "dat_none", ["label"])
    both = {
        "sentences": ["a dog", "a cat"],
        "concepts": [{"name": "dog", "positives": [0], "negatives": [1], "domain": ""}],
        "name": "x",
    }
    place = f"/v1/models/{lab.model['id']}:find-experts"
    answer = lab.client.post(place, json={"concept_set": both})
    assert (answer.status_code, answer.json()["reason"]) == (422, InvalidInput.reason)
    assert "at least two of each" in answer.json()["detail"]
    answer = lab.client.post(place, json={"concept_set": both, "dataset_id": dataset.id})
    assert "give either dataset_id" in answer.json()["detail"]
    answer = lab.client.post(place, json={"concept_set": both, "columns": ["label"]})
    assert "columns choose images" in answer.json()["detail"]
    with pytest.raises(UnknownExperts):
        client.experts.get("exp_none")


def test_a_search_is_compared_with_people_without_a_forward_pass(
    lab, client, work, tmp_path, monkeypatch, capsys
):
    built = built_from_templates("words", WORDS, 20, 40, frames=FRAMES, fillers=FILLERS)
    job = client.experts.find_in_sentences(lab.model["id"], built)
    work()
    search = client.jobs.wait(job).result["experts_id"]
    text = "word_1,word_2,rating\napple,banana,9\nboat,car,8\ncup,key,4\napple,cup,2\nboat,sofa,1"
    ratings = read_ratings_csv(text, "mine")
    with pytest.raises(InvalidInput, match="sofa"):
        client.experts.align(search, [ratings])
    job = client.experts.align(search, [ratings], unknown_words="leave_out")
    work()
    done = client.jobs.wait(job)
    assert done.state == "succeeded", done.error
    assert done.n_shards_reused == done.n_shards
    file = tmp_path / "mine.csv"
    file.write_text(text)
    monkeypatch.setenv("FULCRUM_CLIENT_URL", lab.platform.url)
    monkeypatch.setenv("FULCRUM_CLIENT_TOKEN", lab.platform.token_of(lab.platform.admin_user))
    with pytest.raises(SystemExit) as ended:
        fulcrum(["experts", "align", search, str(file), "--leave-out"])
    assert ended.value.code == 0
    assert "mine: 4 pairs" in capsys.readouterr().out
    (found,) = client.experts.get(done.result["experts_id"]).alignments
    assert (found.name, found.n_used) == ("mine", 4)
    assert {"experts", "random_weights", "bare_word"} <= {c.of for c in found.correlations}


def test_a_language_model_is_asked_for_found_and_looked_at_in_the_sdk_and_by_the_command(
    lab, client, work, tmp_path, monkeypatch, capsys
):
    built = built_from_templates("words", WORDS, 20, 40, frames=FRAMES, fillers=FILLERS)
    save_causal(tmp_path / "gpt", built)
    job = client.experts.find_in_language_model("folder:lab/gpt", built, layers=["mlp"])
    work()
    done = client.jobs.wait(job)
    assert done.state == "succeeded", done.error
    (record,) = client.experts.list(units="language")
    assert (record.language_model, record.model_id, record.name) == ("folder:lab/gpt", None, "words")
    found = client.experts.get(record)
    assert found.layers[0].name == "h.0.mlp.c_fc"
    assert client.experts.concept_set(record) == built
    assert client.experts.structure(record).random_weights.of == "random_weights"
    assert client.experts.stability(record, record).mean_overlap == 1.0
    ratings = read_ratings_csv("word_1,word_2,rating\napple,banana,9\nboat,car,8\ncup,apple,2", "mine")
    aligned = client.experts.align(record, [ratings])
    work()
    (alignment,) = client.experts.get(client.jobs.wait(aligned).result["experts_id"]).alignments
    assert alignment.n_used == 3
    monkeypatch.setenv("FULCRUM_CLIENT_URL", lab.platform.url)
    monkeypatch.setenv("FULCRUM_CLIENT_TOKEN", lab.platform.token_of(lab.platform.admin_user))
    names = [c.name for c in built.concepts]
    lists = SentenceLists(
        {c.name: [built.sentences[n] for n in c.positives] for c in built.concepts},
        {c.name: [built.sentences[n] for n in c.negatives] for c in built.concepts},
        dict.fromkeys(names, ""),
    )
    file = tmp_path / "words.csv"
    file.write_text(write_concepts_csv(lists))

    def run(*arguments):
        with pytest.raises(SystemExit):
            fulcrum(["experts", "find-in", str(file), *arguments, "--json"])
        return json.loads(capsys.readouterr().out)

    answered = threading.Event()

    def work_until_answered():
        while not answered.wait(0.1):
            work()

    worker = threading.Thread(target=work_until_answered, daemon=True)
    worker.start()
    asked = run("--language-model", "folder:lab/gpt", "--layer", "h.0.*")
    assert [layer["name"] for layer in asked["layers"]] == [
        "h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj"
    ]  # fmt: skip
    assert asked["record"]["language_model"] == "folder:lab/gpt"
    answered.set()
    worker.join()
    assert "either --model" in run()["error"]["message"]


def test_a_reference_that_cannot_name_a_language_model_is_refused_at_once(lab, client):
    built = built_from_templates("words", WORDS, 20, 40, frames=FRAMES, fillers=FILLERS)
    for reference in ("/etc/passwd", "gpt2", "hf-hub:../up", "hf-hub:a", "folder:"):
        with pytest.raises(UnknownModel, match="not a language model that can be asked for"):
            client.experts.find_in_language_model(reference, built)
    stranger = lab.platform.as_user("stranger")
    body = {"project_id": lab.model["project_id"], "language_model": "folder:lab/gpt"}
    one = {"name": "b", "positives": [0, 1], "negatives": [2, 3]}
    body["concept_set"] = {"name": "a", "sentences": ["c", "d", "e", "f"], "concepts": [one]}
    assert stranger.post("/v1/experts:find", json=body).json()["reason"] == "UNKNOWN_PROJECT"
    body["layers"] = [""]
    assert lab.client.post("/v1/experts:find", json=body).status_code == 422


def test_a_sentence_that_is_too_long_for_the_text_tower_is_refused_before_there_is_a_job(lab, client):
    short = ["a dog", "my dog here", "a cat", "the cup there"]
    concepts = [{"name": "dog", "positives": [0, 1], "negatives": [2, 3]}]
    place = f"/v1/models/{lab.model['id']}:find-experts"
    fits = {"name": "x", "sentences": [*short, "x" * 38], "concepts": concepts}
    fits["concepts"] = [{"name": "dog", "positives": [0, 1, 4], "negatives": [2, 3]}]
    assert lab.client.post(place, json={"concept_set": fits}).status_code == 202
    n_jobs = len(list(client.jobs.list()))
    long = fits | {"sentences": [*short, "x" * 39]}
    answer = lab.client.post(place, json={"concept_set": long})
    assert (answer.status_code, answer.json()["reason"]) == (422, InvalidPrompt.reason)
    assert "has 41 tokens, the model reads at most 40" in answer.json()["detail"]
    assert len(list(client.jobs.list())) == n_jobs
    # A sentence that no concept uses is none of the question.
    unused = long | {"concepts": concepts}
    assert lab.client.post(place, json={"concept_set": unused}).status_code == 202
