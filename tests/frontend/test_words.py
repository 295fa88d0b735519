import pytest

from fulcrum.domain.edits import Add, Affine, Cap, Floor, MeanAblate, ProjectOut, Scale, SetTo
from fulcrum_ui.parts import words


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (Scale(3, 0.0), "suppress sticker (3)"),
        (Scale(3, 2.0), "amplify sticker (3) × 2"),
        (Scale(3, 0.5), "turn sticker (3) × 0.5"),
        (SetTo(3, 1.5), "set sticker (3) to 1.5"),
        (Cap(3, 1.0), "cap sticker (3) at 1"),
        (Floor(3, 1.0), "raise sticker (3) to at least 1"),
        (Add(3, -1.0), "add -1 to sticker (3)"),
        (Affine(3, 0.5, -0.25), "turn sticker (3) × 0.5 − 0.25"),
        (MeanAblate(3, 0.25), "set sticker (3) to its mean 0.25"),
        (Affine(3, 0.5, 2.0), "turn sticker (3) × 0.5 + 2"),
        (Affine(3, 0.5, -2.0), "turn sticker (3) × 0.5 − 2"),
        (ProjectOut(3), "take the direction of sticker (3) out"),
    ],
)
def test_each_edit_has_its_words(edit, said):
    assert words.edit_words(edit, "sticker") == said
    assert "latent 3" in words.edit_words(edit)
    assert "unit 3" in words.edit_words(edit, noun="unit")


def test_many_edits_are_a_line():
    edits = (Scale(1, 0.0), SetTo(2, 0.123456), Add(3, 1.0))
    assert (
        words.edits_words(edits, {1: "red"}, 2, "unit") == "suppress red (1), set unit 2 to 0.1235 and 1 more"
    )


def test_numbers_are_rounded_and_missing_ones_are_a_dash():
    assert words.percent(0.2714) == "27.1 %"
    assert words.signed(-1.234) == "−1.23"
    assert words.signed(None) == words.percent(None) == words.number(None) == "–"
    assert words.number(12345) == "12 345"
    assert words.p_value(8.7e-165) == "p = 8.7e-165"
    assert words.duration(75) == "75 s"
    assert words.duration(600) == "10 min"
    assert words.size(1_400_000) == "1.4 MB"


def test_html_of_names_is_escaped():
    assert "<b>" not in words.badge("<b>x</b>")


def test_what_people_wrote_is_shown_as_it_is_where_markdown_is_read():
    assert words.plain("![x](http://a/b) *b* `c`") == r"\!\[x\]\(http\://a/b\) \*b\* \`c\`"
    assert words.plain("no_stickers") == r"no\_stickers"
    assert words.plain("two\nlines") == "two lines"


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (["encoder.layer.0.a", "encoder.layer.1.a"], "encoder.layer."),
        (["visual.blocks.0.mlp_in", "visual.blocks.0.mlp_out"], "visual.blocks.0."),
        (["h.10.c_fc", "h.11.c_fc"], "h."),
        (["latents"], ""),
        (["abc", "abd"], ""),
    ],
)
def test_what_all_names_of_layers_begin_with_is_said_once(names, shared):
    assert words.shared_beginning(names) == shared
