import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Add, Affine, Cap, LatentCondition, MeanAblate, Scale, Scope, SetTo
from fulcrum.domain.tasks import ClassSet
from fulcrum_ui.bench_state import (
    MAX_GAIN,
    MAX_STRENGTH,
    Bench,
    Held,
    are_templates,
    at_strength,
    of_correction,
    split_classes,
    split_templates,
)

names = st.text("abc éß-'", min_size=1, max_size=8).map(str.strip).filter(lambda n: n and "," not in n)
gains = st.floats(0, MAX_GAIN).map(abs)  # -0.0 is 0.0


@given(
    st.lists(names, max_size=5, unique=True),
    st.dictionaries(st.integers(0, 10**6), gains, max_size=6),
    st.sets(st.integers(0, 10**4), max_size=6),
)
def test_an_address_holds_the_whole_bench(classes, edits, region):
    bench = Bench(
        image="img_1",
        sae="sae_1",
        classes=tuple(classes),
        template="{} in snow | a {} by night",
        gains=tuple(edits.items()),
        region=tuple(sorted(region)),
    )
    assert Bench.from_query(bench.to_query()) == bench


@given(
    st.dictionaries(
        st.sampled_from(["edits", "region", "classes", "template", "image"]), st.text(max_size=30)
    )
)
def test_any_address_is_read_without_an_error(query):
    bench = Bench.from_query(query)
    assert all(t.count("{}") == 1 for t in split_templates(bench.template))
    assert all(0 <= g <= MAX_GAIN for _, g in bench.gains)
    assert bench.scope.kind in ("all", "patch_list")


def test_a_gain_of_one_is_no_edit():
    bench = Bench().with_gain(3, 1.0).with_gain(4, 0.0)
    assert bench.edits == (Scale(4, 0.0),)
    assert bench.without(4).edits == ()


def test_a_region_limits_the_edits():
    assert Bench(region=(2, 5)).scope == Scope("patch_list", (2, 5))
    assert Bench().scope == Scope()


def test_names_are_taken_once_and_without_blanks():
    assert split_classes(" dog, cat,,dog \n bird ") == ("dog", "cat", "bird")


def test_several_prompts_are_averaged_in_the_task():
    bench = Bench(classes=("dog",), template="a photo of a {} | a drawing of a {}")
    assert bench.task.templates == ("a photo of a {}", "a drawing of a {}")
    assert not are_templates("a photo | a {}")
    assert not are_templates(" | ")


def correction(*edits, **more):
    return Correction("m", "s", "visual.blocks.1.resid_post", edits, **more)


def on_bench(found, classes=("dog", "cat")):
    return of_correction(found, "img_1", "sae_1", classes, ("a {}", "the {}"), "cor_1.2")


def test_a_correction_comes_whole_onto_the_bench():
    edits = tuple(Scale(n, (2 * n + 1) / 100) for n in range(100))  # none of them 1, which is no edit
    bench, missing = on_bench(correction(*edits, scope=Scope("patch_list", (3, 4))))
    assert missing is None
    assert bench.edits == edits
    assert bench.scope == Scope("patch_list", (3, 4))
    assert bench.task == ClassSet(("dog", "cat"), ("a {}", "the {}"))


@pytest.mark.parametrize(
    "found",
    [
        correction(Scale(1, 0.0), conditions=(LatentCondition(1, ">=", 0.5),)),
        correction(Scale(1, 0.0), drop_error=True),
    ],
)
def test_what_the_bench_cannot_do_whole_it_does_not_do_in_part(found):
    bench, missing = on_bench(found)
    assert missing
    assert bench.edits == ()
    assert bench.image == "img_1"


@pytest.mark.parametrize(
    "found",
    [
        correction(Scale(1, 0.0), SetTo(2, 1.0)),
        correction(Scale(1, 9.0)),
        correction(Scale(1, -1.0)),
        correction(Affine(1, 0.5, 2.0), Add(2, -1.0)),
        correction(Scale(1, 0.0), scope=Scope("cls")),
    ],
)
def test_what_sliders_of_gains_cannot_say_lies_on_the_bench_as_the_correction_that_was_saved(found):
    bench, missing = on_bench(found)
    assert missing is None
    assert bench.edits == found.edits
    assert bench.scope == found.scope
    assert bench.to_query()["correction"] == "cor_1.2"
    taken = bench.with_gain(1, 0.5)
    assert Scale(1, 0.5) in taken.edits
    assert [e.latent for e in taken.edits].count(1) == 1
    assert taken.without_edits().edits == taken.on_sae("sae_2").edits == ()


@given(st.floats(0, 2), st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3))
def test_half_of_an_edit_is_half_of_the_way(strength, z, gain, value):
    def edited(edit):
        match edit:
            case Scale(_, g):
                return g * z
            case SetTo(_, v) | MeanAblate(_, v):
                return v
            case Add(_, v):
                return z + v
            case Affine(_, g, v):
                return g * z + v

    for edit in (
        Scale(1, gain),
        SetTo(1, value),
        MeanAblate(1, value),
        Add(1, value),
        Affine(1, gain, value),
    ):
        expected = z + strength * (edited(edit) - z)
        assert edited(at_strength(edit, strength)) == pytest.approx(expected, abs=1e-9)


def test_of_a_bound_there_is_no_half():
    assert not Held("a", (Cap(1, 2.0), Scale(2, 0.0)), Scope()).has_strengths
    assert Held("a", (SetTo(1, 2.0),), Scope()).has_strengths
    assert Bench(correction="cor_1", held=Held("a", (SetTo(1, 2.0),), Scope()), strength=0.0).edits == ()


@given(st.floats(0, MAX_STRENGTH))
def test_an_address_holds_a_saved_correction_and_its_strength(strength):
    bench = Bench(image="img_1", correction="cor_1.2", strength=abs(strength))
    assert Bench.from_query(bench.to_query()) == bench


def test_names_that_would_be_read_otherwise_are_left_out():
    bench, missing = on_bench(correction(Scale(1, 0.0)), classes=("dog, small", "cat"))
    assert missing
    assert bench.classes == ()
