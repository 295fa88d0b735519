"""The curve over checkpoints, from searches as the SDK gives them."""

from types import SimpleNamespace

import pytest

from fulcrum_ui import charts
from fulcrum_ui.parts.expert_curve import curve_table


def search(name: str, **concepts: tuple[float, float | None]) -> SimpleNamespace:
    found = [SimpleNamespace(name=n, best_ap=ap, control_best_ap=c) for n, (ap, c) in concepts.items()]
    return SimpleNamespace(record=SimpleNamespace(name=name, id=f"exp_{name}"), concepts=found)


def test_only_concepts_that_all_searches_have_are_drawn_with_their_means():
    first = search("early", red=(0.2, 0.1), blue=(0.4, 0.1), green=(0.9, 0.1))
    second = search("late", blue=(0.8, 0.3), red=(0.6, 0.1))
    table = curve_table([first, second])
    assert set(table.concept) == {"red", "blue", "mean", "random weights"}
    by = table.set_index(["concept", "step"]).ap
    assert (by["red", 1], by["red", 2]) == (0.2, 0.6)
    assert by["mean", 1] == pytest.approx(0.3)
    assert by["mean", 2] == pytest.approx(0.7)
    assert by["random weights", 2] == pytest.approx(0.2)
    assert list(table[table.concept == "mean"].search) == ["early", "late"]


def test_without_a_shared_concept_there_is_no_curve_and_without_controls_no_dashes():
    assert curve_table([search("a", red=(0.2, None)), search("b", blue=(0.4, None))]).empty
    table = curve_table([search("a", red=(0.2, None)), search("b", red=(0.4, 0.1))])
    assert list(table[table["of"] == "random weights"].step) == [2]


def test_the_chart_says_which_line_is_what():
    spec = charts.checkpoint_curve(
        curve_table([search("a", red=(0.2, 0.1)), search("b", red=(0.4, 0.1))])
    ).to_dict()
    assert [layer["transform"][0]["filter"] for layer in spec["layer"]] == [
        "datum.of == 'concept'", "datum.of == 'random weights'", "datum.of == 'mean'",
    ]  # fmt: skip
