import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import get_args

import pytest
from tests.client.samples import ATTRIBUTION, EFFECT, IMAGE
from tests.client.test_answers import FOUND, MANY, SWEPT, TRIED, WHY

from fulcrum.client import display
from fulcrum.domain.edits import Add, Affine, Cap, Edit, Floor, MeanAblate, ProjectOut, Scale, SetTo

EDITS = (
    Scale(1, 0.5),
    SetTo(2, 3.0),
    Cap(3, 1.0),
    Floor(4, 0.5),
    Add(5, -1.0),
    ProjectOut(6),
    MeanAblate(7, 0.1),
    Affine(8, 0.5, -1.0),
)
NASTY = "<script>alert('\"&</script>"


class Checked(HTMLParser):
    """Fails for what is not well formed or reaches out of the page; gathers what a person reads."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.tags = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in {"div", "table", "thead", "tbody", "tr", "th", "td", "b", "span"}
        assert [name for name, _ in attrs if name != "style"] == []
        assert all("url(" not in value for _, value in attrs)
        self.open.append(tag)
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.mark.parametrize("answer", [WHY, TRIED, SWEPT, MANY, FOUND], ids=lambda a: type(a).__name__)
def test_what_a_notebook_shows_is_one_well_formed_piece_without_scripts_or_links(answer):
    assert Checked(answer._repr_html_()).words


def test_an_explanation_shows_prediction_scores_and_measured_effects():
    words = Checked(WHY.with_labels({7: "sticker"})._repr_html_()).words
    for part in ("dog <1>.png", "dog", "70.0%", "7 sticker", "+0.8", "+0.6", "-0.4", "not measured", "0.90"):
        assert part in words


def test_bars_are_as_long_as_the_scores_and_start_in_the_middle():
    bars = re.findall(r"left:([\d.]+)%;width:([\d.]+)%", WHY._repr_html_())
    assert bars == [("50.0", "50.0"), ("25.0", "25.0")]


def test_a_steering_shows_before_after_controls_and_edits():
    words = Checked(TRIED._repr_html_()).words
    for part in (
        "dog → cat",
        "70.0%",
        "30.0%",
        "-40.0 pt",
        "7 × 0",
        "dog over cat",
        "0 of 2 flip, p = 0.333",
    ):
        assert part in words


def test_an_edit_that_did_nothing_says_so():
    unchanged = replace(EFFECT, after=EFFECT.before, diagnostics=replace(EFFECT.diagnostics, changed=False))
    words = Checked(display.steering_html("a", (), unchanged)).words
    assert "stays dog" in words
    assert "bit-identical" in words
    assert "edits: none" in words


def test_a_curve_says_where_it_flips():
    assert "flips between gains 0 and 1" in Checked(SWEPT._repr_html_()).words


def test_words_of_other_people_cannot_become_markup():
    nasty = replace(EFFECT.before, class_names=(NASTY, "cat", "car"))
    attribution = replace(ATTRIBUTION, prediction=nasty)
    why = replace(WHY, image=replace(IMAGE, filename=NASTY), attribution=attribution, labels={7: NASTY})
    tried = replace(TRIED, effect=replace(EFFECT, before=nasty, after=nasty), image=why.image)
    many = replace(MANY, images=(why.image,), before=(nasty,), after=(nasty,))
    found = replace(FOUND, wanted=NASTY)
    for answer in (why, tried, many, found):
        html = answer._repr_html_()
        assert "<script" not in html
        assert NASTY in Checked(html).words


def test_every_kind_of_edit_has_a_short_text():
    assert {type(e) for e in EDITS} == set(get_args(Edit))
    assert [display.edit_text(e) for e in EDITS] == [
        "1 × 0.5", "2 = 3", "3 ≤ 1", "4 ≥ 0.5", "5 − 1", "6 projected out, keep 0", "7 = mean 0.1", "8 × 0.5 − 1",
    ]  # fmt: skip


def test_long_answers_are_cut_and_say_so():
    many = replace(ATTRIBUTION, latents=ATTRIBUTION.latents * 30)
    html = display.explanation_html("a", many, {})
    assert f"{60 - display.MAX_ROWS} more latents" in html
    assert html.count("<b>7</b>") == display.MAX_ROWS // 2
    names = ["x"] * 50
    assert "30 more" in display.predictions_html(names, [EFFECT.before] * 50, None)
