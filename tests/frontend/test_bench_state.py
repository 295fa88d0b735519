from hypothesis import given
from hypothesis import strategies as st

from fulcrum.domain.edits import Scale, Scope
from fulcrum_ui.bench_state import MAX_GAIN, Bench, are_templates, split_classes, split_templates

names = st.text("abc éß-'", min_size=1, max_size=8).map(str.strip).filter(lambda n: n and "," not in n)
gains = st.floats(0, MAX_GAIN).map(lambda g: round(g, 2))


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
