"""The story on a smaller world: what `fulcrum demo` promises, end to end."""

import html
import json

import pytest

from fulcrum.cli.output import plain
from fulcrum.demo.report import write_report
from fulcrum.demo.story import tell
from fulcrum.domain.corrections import from_dict
from fulcrum.engine.local import LocalEngine

KEYS = {
    "n_confirm", "clean_top1", "attacked_top1", "attacked_as_word", "corrected_clean_top1", "corrected_attacked_top1",
    "mcnemar_p", "nfr_upper95", "control_p95_gain", "verdict",
}  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    small = {"discover": 72, "select": 24, "confirm": 96}
    return folder, tell(folder, LocalEngine(), n_pairs=small, seed=1)


def test_the_correction_mends_unseen_attacked_images_at_no_clean_loss(told):
    _, story = told
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
    _, story = told
    sample = story.dataset.samples[story.image_number]
    assert sample.split == "discover"
    assert story.effect.before.top == sample.metadata["sticker_word"]
    assert story.attribution.prediction.top == story.effect.before.top
    assert story.effect.target_after < story.effect.target_before


def test_nothing_of_confirm_was_used_to_find_the_correction(told):
    _, story = told
    assert story.group.correction.origin.note.startswith("discover")
    given = story.validated.given
    assert given.split == "confirm"
    assert story.validated.report.confirm_look == 1


def test_the_report_is_one_file_that_needs_nothing_else(told):
    folder, story = told
    path = folder / "report.html"
    write_report(story, path)
    text = path.read_text()
    assert html.escape(story.validated.report.verdict.badge) in text
    assert text.count("data:image/png;base64,") > 20
    assert text.count("<svg") >= 5
    assert 'src="http' not in text
    assert "<script" not in text


def test_the_saved_correction_is_the_one_that_was_proven(told):
    folder, story = told
    saved = from_dict(json.loads((folder / "correction.json").read_text()))
    assert saved.sha256 == story.group.correction.sha256
    assert story.validated.report.subject.correction_sha256 == saved.sha256
