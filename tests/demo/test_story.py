"""The story on a smaller world: what `fulcrum demo` promises, end to end."""

import html
import json
import os
from pathlib import Path

import pytest

import fulcrum
from fulcrum.cli.output import plain
from fulcrum.client import Client
from fulcrum.demo.report import write_report
from fulcrum.demo.served import CORRECTION_NAME, Served
from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS, demo_task
from fulcrum.demo.story import tell
from fulcrum.domain.corrections import from_dict
from fulcrum.engine.local import LocalEngine
from fulcrum.local.platform import Platform
from fulcrum.local.settings import Settings

KEYS = {
    "n_confirm", "clean_top1", "attacked_top1", "attacked_as_word", "corrected_clean_top1", "corrected_attacked_top1",
    "mcnemar_p", "nfr_upper95", "control_p95_gain", "verdict",
}  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The story through services of its own: redis-server, inference, gateway."""
    folder = tmp_path_factory.mktemp("story")
    small = {"discover": 72, "select": 24, "confirm": 96}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FULCRUM_")}
    environment |= {"PYTHONPATH": str(Path(fulcrum.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    platform = Platform(
        Settings(data_dir=folder / "platform", client_file=folder / "client.json", device="cpu"),
        environment,
        folders={FOLDER_NAME: WEIGHTS},
        canary_model="folder:demo/clip",
    )
    with platform as started, Client(started.url, started.token, timeout_s=300) as client:
        services = lambda: Served(client, demo_task(), "told in a test")  # noqa: E731  # the shortest word for it
        story = tell(folder, LocalEngine(), services, n_pairs=small, seed=1)
        yield folder, story, client


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
    write_report(story, path)
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
    _, story, _ = told
    assert story.agreement.n_images == 2 * story.findings.n_confirm
    assert story.agreement.n_different == 0
    assert story.agreement.max_logit_difference < 1e-3


def test_the_platform_keeps_what_was_asked_and_what_was_found(told):
    _, story, client = told
    (saved,) = client.corrections.list()
    assert saved.name == CORRECTION_NAME
    assert client.corrections.version(saved).sha256 == story.group.correction.sha256
    (session,) = client.sessions.list()
    kinds = [e.kind for e in client.sessions.entries(session)]
    assert kinds.count("hypothesis") == 1
    assert kinds.count("result") == len(list(client.results.list())) >= 5
    uploaded = {i.sha256 for i in client.images.list()}
    assert len(uploaded) == 2 * story.findings.n_confirm + 1  # the twins, and the example from discover


def test_telling_it_again_registers_nothing_twice(told):
    _, story, client = told
    again = Served(client, demo_task(), "told again")
    again.save(story.group.correction)
    assert [len(list(r.list())) for r in (client.models, client.saes, client.corrections)] == [1, 1, 1]
    assert again.correction.latest == 1
