"""The story on a smaller world: what `fulcrum demo` promises, end to end, and what it leaves on the platform."""

import html
import json
import os
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

import fulcrum
from fulcrum.cli.main import app
from fulcrum.cli.output import plain
from fulcrum.client import Client
from fulcrum.demo import story as story_module
from fulcrum.demo.served import CORRECTION_NAME, Served
from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS, WORLD_NAME, demo_task
from fulcrum.demo.world_dataset import WorldSize
from fulcrum.domain.corrections import from_dict
from fulcrum.local.platform import Platform
from fulcrum.local.settings import Settings

SMALL = WorldSize({"discover": 72, "select": 24, "confirm": 96}, n_right=6, n_neutral=6, n_cues=8)
KEYS = {
    "n_confirm", "clean_top1", "attacked_top1", "attacked_as_word", "corrected_clean_top1", "corrected_attacked_top1",
    "mcnemar_p", "nfr_upper95", "control_p95_gain", "verdict",
}  # fmt: skip
JOBS = {
    "import_dataset",
    "index_dataset",
    "suggest_correction",
    "validate_correction",
    "sweep_correction",
    "describe_concepts",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """`fulcrum demo --exit --json` on a smaller world: its folder, its story, and what it printed."""
    folder, stories = tmp_path_factory.mktemp("story"), []
    full = story_module.tell

    def tell(*args, **kwargs):
        stories.append(full(*args, **kwargs, size=SMALL))
        return stories[0]

    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("FULCRUM_")]:
            patch.delenv(name)
        patch.setenv("FULCRUM_CLIENT_FILE", str(folder / "client.json"))
        services = Path(fulcrum.__file__).parents[1]
        patch.setenv("PYTHONPATH", os.pathsep.join((str(services), str(services.parent / "frontend"))))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(story_module, "tell", tell)
        command = ["demo", "--exit", "--json", "--seed", "1", "--out", str(folder), "--device", "cpu"]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        assert our_services(folder) == []
        yield folder, stories[0], json.loads(done.stdout)


@pytest.fixture(scope="module")
def client(told):
    """The demo's platform, started again on its folder."""
    folder = told[0]
    settings = Settings(data_dir=folder / "platform", client_file=folder / "client.json", device="cpu")
    platform = Platform(settings, dict(os.environ), folders={FOLDER_NAME: WEIGHTS})
    with platform as started, Client(started.url, started.token, timeout_s=300) as client:
        yield client
    assert our_services(folder) == []


def our_services(folder):
    """Processes of the platform in this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            # The inference service is told its socket by its environment, Redis by its arguments.
            said = " ".join((*process.cmdline(), *process.environ().values()))
        except psutil.Error:
            continue
        if str(folder / "platform") in said and process.pid != os.getpid():
            found.append(process)
    return found


def test_the_correction_mends_unseen_attacked_images_at_no_clean_loss(told):
    _, story, _ = told
    found = plain(story.findings)
    assert set(found) == KEYS
    assert found["n_confirm"] == 96
    assert found["clean_top1"] >= 0.93  # 96 images: a twentieth is five of them
    assert found["attacked_top1"] <= 0.5
    assert found["attacked_as_word"] > 0.5
    assert found["corrected_attacked_top1"] - found["attacked_top1"] >= 0.22
    assert found["corrected_clean_top1"] >= found["clean_top1"] - 0.0105
    assert found["mcnemar_p"] < 1e-6
    assert found["control_p95_gain"] < found["corrected_attacked_top1"] - found["attacked_top1"]


def test_the_example_is_an_image_on_which_the_correction_works(told):
    _, story, _ = told
    assert story.example.split == "discover"
    assert story.effect.before.top == story.example.metadata["sticker_word"]
    assert story.attribution.prediction.top == story.effect.before.top
    assert story.effect.target_after < story.effect.target_before


def test_nothing_of_confirm_was_used_to_find_the_correction(told):
    _, story, _ = told
    origin = story.group.correction.origin
    assert origin.note.startswith("discover")
    splits = dict(zip(story.world.bytes_sha256, story.world.splits, strict=True))
    assert {splits[sha256] for sha256 in origin.image_sha256} == {"discover"}
    assert (story.evaluation.split, story.evaluation.look) == ("confirm", 1)
    assert story.report["counted"]["found_on"] == len(story.world.numbers(split="discover"))


def test_the_doses_end_at_the_unedited_model_and_at_the_correction(told):
    _, story, _ = told
    first, last = story.doses[0], story.doses[-1]
    assert (first.gain, last.gain) == (0.0, 1.0)
    assert first.attacked_top1 > last.attacked_top1
    assert first.others_top1 > 0.9


def test_the_report_is_one_file_that_needs_nothing_else(told):
    folder, story, _ = told
    path = folder / "report.html"
    text = path.read_text()
    assert html.escape(story.evaluation.badge) in text
    assert text.count("data:image/png;base64,") > 20
    assert text.count("<svg") >= 5
    assert 'src="http' not in text
    assert "<script" not in text


def test_the_saved_correction_is_the_one_that_was_proven(told):
    folder, story, _ = told
    saved = from_dict(json.loads((folder / "correction.json").read_text()))
    assert saved.sha256 == story.group.correction.sha256
    assert saved.origin == story.group.correction.origin
    assert story.evaluation.correction_sha256 == saved.sha256


def test_the_services_and_the_workers_agree(told):
    _, story, printed = told
    assert story.agreement.n_images == 24
    assert story.agreement.n_different == 0
    assert story.agreement.max_logit_difference < 1e-3
    assert printed["platform"]["agreement"] == plain(story.agreement)


def test_the_findings_are_printed_as_one_object_with_the_platform_beside_them(told):
    folder, story, printed = told
    assert {k: v for k, v in printed.items() if k != "platform"} == plain(story.findings)
    assert printed["platform"]["url"].startswith("http://127.0.0.1:")
    assert printed["platform"]["data_dir"] == str(folder / "platform")


def test_whoever_looks_around_afterwards_finds_everything(told, client):
    _, story, _ = told
    assert {job.kind for job in client.jobs.list()} == JOBS
    (dataset,) = client.datasets.list()
    assert (dataset.name, dataset.state, dataset.digest) == (
        "Demo world, seed 1",
        "ready",
        story.world.digest,
    )
    assert dataset.n_by_split == {"confirm": 212, "discover": 164, "select": 68}
    (saved,) = client.corrections.list()
    assert (saved.name, saved.state) == (CORRECTION_NAME, "evaluated")
    assert client.corrections.version(saved).sha256 == story.group.correction.sha256
    (index,) = client.latents.indexes(dataset=dataset)
    assert index.n_images == len(story.world)
    assert {e.kind for e in client.evaluations.list(correction=saved)} == {"validation", "sweep"}
    (sae,) = client.saes.list()
    assert next(client.latents.descriptions(sae)).dataset_id == dataset.id
    assert len(client.latents.map(sae).latents) > 100
    card = client.latents.cards(sae, story.group.correction.latents[:1])[0]
    assert card.summary.label
    assert len(card.examples) > 1


def test_the_session_holds_what_was_asked_about_the_example(told, client):
    _, story, _ = told
    (session,) = client.sessions.list()
    kinds = [e.kind for e in client.sessions.entries(session)]
    assert (kinds.count("hypothesis"), kinds.count("result")) == (1, 4)
    names = {i.filename for i in client.images.list()}
    assert f"{story.example.id}.png" in names
    assert len(names) == 1 + story.agreement.n_images


def test_told_again_it_computes_nothing_again(told, client, tmp_path):
    folder, story, _ = told
    jobs = {job.id for job in client.jobs.list()}
    steps = []

    def services():
        return Served(client, demo_task(), lambda *step: steps.append(step))

    began = time.monotonic()
    worlds = folder / "platform" / WORLD_NAME
    again = story_module.tell(tmp_path, worlds, services, lambda *step: None, 1)
    assert {job.id for job in client.jobs.list()} == jobs
    assert time.monotonic() - began < 30
    assert again.findings == story.findings
    assert [len(list(r.list())) for r in (client.models, client.saes, client.sessions)] == [1, 1, 1]
    assert next(client.corrections.list()).latest == 1
    (session,) = client.sessions.list()
    assert len(list(client.sessions.entries(session))) == 5
