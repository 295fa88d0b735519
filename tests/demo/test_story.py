"""The story on a smaller world: what `fulcrum demo` promises, end to end."""

import html
import json
import os
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
from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS, demo_task
from fulcrum.domain.corrections import from_dict
from fulcrum.local.platform import Platform
from fulcrum.local.settings import Settings

SMALL = {"discover": 72, "select": 24, "confirm": 96}
KEYS = {
    "n_confirm", "clean_top1", "attacked_top1", "attacked_as_word", "corrected_clean_top1", "corrected_attacked_top1",
    "mcnemar_p", "nfr_upper95", "control_p95_gain", "verdict",
}  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """`fulcrum demo --exit --json` on a smaller world: its folder, its story, and what it printed."""
    folder, stories = tmp_path_factory.mktemp("story"), []
    full = story_module.tell

    def tell(*args, **kwargs):
        stories.append(full(*args, **kwargs, n_pairs=SMALL))
        return stories[0]

    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("FULCRUM_")]:
            patch.delenv(name)
        patch.setenv("FULCRUM_CLIENT_FILE", str(folder / "client.json"))
        patch.setenv("PYTHONPATH", str(Path(fulcrum.__file__).parents[1]))
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
    sample = story.dataset.samples[story.image_number]
    assert sample.split == "discover"
    assert story.effect.before.top == sample.metadata["sticker_word"]
    assert story.attribution.prediction.top == story.effect.before.top
    assert story.effect.target_after < story.effect.target_before


def test_nothing_of_confirm_was_used_to_find_the_correction(told):
    _, story, _ = told
    assert story.group.correction.origin.note.startswith("discover")
    given = story.validated.given
    assert given.split == "confirm"
    assert story.validated.report.confirm_look == 1


def test_the_report_is_one_file_that_needs_nothing_else(told):
    folder, story, _ = told
    path = folder / "report.html"
    text = path.read_text()
    assert html.escape(story.validated.report.verdict.badge) in text
    assert text.count("data:image/png;base64,") > 20
    assert text.count("<svg") >= 5
    assert 'src="http' not in text
    assert "<script" not in text


def test_the_saved_correction_is_the_one_that_was_proven(told):
    folder, story, _ = told
    saved = from_dict(json.loads((folder / "correction.json").read_text()))
    assert saved.sha256 == story.group.correction.sha256
    assert story.validated.report.subject.correction_sha256 == saved.sha256


def test_the_services_and_this_process_agree_on_every_answer(told):
    _, story, printed = told
    assert story.agreement.n_images == 2 * story.findings.n_confirm
    assert story.agreement.n_different == 0
    assert story.agreement.max_logit_difference < 1e-3
    assert printed["platform"]["agreement"] == plain(story.agreement)


def test_the_findings_are_printed_as_one_object_with_the_platform_beside_them(told):
    folder, story, printed = told
    assert {k: v for k, v in printed.items() if k != "platform"} == plain(story.findings)
    assert printed["platform"]["url"].startswith("http://127.0.0.1:")
    assert printed["platform"]["data_dir"] == str(folder / "platform")


def test_the_platform_keeps_what_was_asked_and_what_was_found(told, client):
    _, story, _ = told
    (saved,) = client.corrections.list()
    assert saved.name == CORRECTION_NAME
    assert client.corrections.version(saved).sha256 == story.group.correction.sha256
    (session,) = client.sessions.list()
    kinds = [e.kind for e in client.sessions.entries(session)]
    assert kinds.count("hypothesis") == 1
    assert kinds.count("result") == len(list(client.results.list())) >= 5
    uploaded = {i.sha256 for i in client.images.list()}
    assert len(uploaded) == 2 * story.findings.n_confirm + 1  # the twins, and the example from discover


def test_telling_it_again_registers_nothing_twice(told, client):
    _, story, _ = told
    again = Served(client, demo_task(), "told again")
    again.save(story.group.correction)
    assert [len(list(r.list())) for r in (client.models, client.saes, client.corrections)] == [1, 1, 1]
    assert again.correction.latest == 1
