"""Minimal sets against an exhaustive search over all subsets of the active latents."""

from collections.abc import Sequence
from itertools import combinations

import pytest
import torch
from tests.science.tiny import TinyTower, tiny_head, tiny_images, tiny_sae

from fulcrum.domain.edits import Scale, Scope
from fulcrum.domain.errors import EditCannotReachOutput, InvalidEdit, InvalidSettings, InvalidTarget
from fulcrum.domain.results import Suggestion
from fulcrum.domain.tasks import MarginTarget
from fulcrum.science.attribution.act_x_grad import act_x_grad
from fulcrum.science.attribution.targets import margin_over_best_other, target_function
from fulcrum.science.search.candidates import image_candidates
from fulcrum.science.search.minimal_sets import minimal_sets
from fulcrum.science.steering.edits import EditPlan, apply_edits
from fulcrum.science.vision.split import HookState

TOWER = TinyTower(block=1)
SAE = tiny_sae()
HEAD = tiny_head()
STATES = TOWER.prefix(tiny_images(6, TOWER))


def image(number: int) -> HookState:
    return STATES.rows(slice(number, number + 1))


def margins_after(
    state: HookState, wanted: str, sets: Sequence[tuple[Scale, ...]], scope: Scope | None = None
) -> list[float]:
    plans = [EditPlan(edits, scope or Scope()) for edits in sets]
    x = apply_edits(TOWER, SAE, state.x, plans, [0] * len(plans)).x
    return margin_over_best_other(HEAD, wanted)(TOWER.suffix(HookState(x))).detach().tolist()


def margin_after(
    state: HookState, wanted: str, edits: tuple[Scale, ...], scope: Scope | None = None
) -> float:
    return margins_after(state, wanted, [edits], scope)[0]


def wrong_classes(number: int) -> list[str]:
    top = HEAD.predictions(TOWER.suffix(image(number)))[0].top
    return [name for name in HEAD.class_names if name != top]


CASES = [(number, wanted) for number in range(6) for wanted in wrong_classes(number)]
FOUND: dict[tuple[int, str], list[Suggestion]] = {
    case: list(minimal_sets(TOWER, image(case[0]), SAE, HEAD, case[1], budget=400)) for case in CASES
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_suggested_does_what_it_says(case: tuple[int, str]) -> None:
    number, wanted = case
    for suggestion in FOUND[case]:
        assert suggestion.margin_before == pytest.approx(margin_after(image(number), wanted, ()))
        assert suggestion.margin_after == pytest.approx(margin_after(image(number), wanted, suggestion.edits))
        assert suggestion.flips == (suggestion.margin_after > 0)
        assert suggestion.margin_after > suggestion.margin_before
        assert 1 <= len(suggestion.edits) <= 5


@pytest.mark.parametrize("case", CASES)
def test_no_proper_subset_of_a_minimal_set_flips(case: tuple[int, str]) -> None:
    number, wanted = case
    for suggestion in FOUND[case]:
        if suggestion.minimal:
            assert suggestion.flips
            for size in range(1, len(suggestion.edits)):
                for subset in combinations(suggestion.edits, size):
                    assert margin_after(image(number), wanted, subset) <= 0


@pytest.mark.parametrize("case", CASES)
def test_alternatives_differ_and_none_contains_another(case: tuple[int, str]) -> None:
    sets = [{e.latent for e in s.edits} for s in FOUND[case]]
    assert not any(a <= b for a in sets for b in sets if a is not b)


@pytest.mark.parametrize("case", CASES)
def test_the_answer_flips_between_the_two_ends_of_the_dose_interval(case: tuple[int, str]) -> None:
    number, wanted = case
    for suggestion in FOUND[case]:
        if not suggestion.flips:
            assert suggestion.dose_interval is None
            continue
        assert suggestion.dose_interval is not None
        low, high = suggestion.dose_interval
        assert 0 <= low < high <= 1
        assert high - low <= 0.02
        latents = [e.latent for e in suggestion.edits]
        # Gains walk down from 1, so it has flipped at the lower end and not at the upper one.
        assert margin_after(image(number), wanted, tuple(Scale(n, low) for n in latents)) > 0
        assert margin_after(image(number), wanted, tuple(Scale(n, high) for n in latents)) <= 0


def test_a_smallest_set_is_as_small_as_exhaustive_search_says() -> None:
    compared = 0
    for (number, wanted), found in FOUND.items():
        state = image(number)
        active = (SAE.encode(state.x)[0].amax(0) > 0).nonzero().flatten().tolist()
        singles = {n for n in active if margin_after(state, wanted, (Scale(n, 0.0),)) > 0}
        pairs = any(
            margin_after(state, wanted, (Scale(a, 0.0), Scale(b, 0.0))) > 0
            for a, b in combinations(active, 2)
        )
        smallest = min((len(s.edits) for s in found if s.flips), default=99)
        # Every single latent that flips has a positive estimate here, and all candidates are measured singly.
        if singles:
            assert smallest == 1
            compared += 1
        elif pairs and smallest < 99:
            assert smallest == 2
            compared += 1
    assert compared >= 6


def test_smaller_sets_come_first_and_single_latents_by_how_much_they_do() -> None:
    for found in FOUND.values():
        margins = [s.margin_after for s in found if len(s.edits) == 1]
        assert margins == sorted(margins, reverse=True)
        sizes = [len(s.edits) for s in found]
        assert all(size == 1 for size in sizes[: len(margins)])


def test_several_alternatives_are_found_and_at_most_as_many_as_asked_for() -> None:
    assert max(len(found) for found in FOUND.values()) == 5
    case = max(FOUND, key=lambda c: len(FOUND[c]))
    two = list(minimal_sets(TOWER, image(case[0]), SAE, HEAD, case[1], n_alternatives=2))
    assert [s.edits for s in two] == [s.edits for s in FOUND[case][:2]]


def test_where_nothing_flips_the_nearest_set_is_shown_as_one_that_does_not() -> None:
    missed = [found for found in FOUND.values() if not any(s.flips for s in found)]
    assert missed
    for found in missed:
        assert len(found) <= 1
        assert all(not s.minimal for s in found)


def test_the_estimate_is_the_first_order_effect_of_the_edits() -> None:
    number, wanted = CASES[0]
    margin = margin_over_best_other(HEAD, wanted)
    scores = act_x_grad(TOWER, image(number), SAE, margin)
    by_latent = dict(zip(scores.latents.tolist(), scores.values.tolist(), strict=True))
    for suggestion in FOUND[CASES[0]]:
        expected = -sum(by_latent[e.latent] for e in suggestion.edits)
        assert suggestion.estimated_effect == pytest.approx(expected)


def test_amplifying_is_tried_where_it_is_allowed() -> None:
    with_both = [
        s
        for number, wanted in CASES
        for s in minimal_sets(TOWER, image(number), SAE, HEAD, wanted, gains=(0.0, 3.0), budget=100)
    ]
    assert {e.gain for s in with_both for e in s.edits} == {0.0, 3.0}
    mixed = [s for s in with_both if len({e.gain for e in s.edits}) > 1]
    assert all(s.dose_interval is None for s in mixed)
    amplified = [s for s in with_both if s.flips and {e.gain for e in s.edits} == {3.0}]
    assert amplified
    assert all(s.dose_interval is not None and s.dose_interval[0] >= 1 for s in amplified)


def test_each_latent_is_a_candidate_at_its_better_gain() -> None:
    y = target_function(HEAD, MarginTarget("a", "b"))
    _, candidates = image_candidates(TOWER, image(0), SAE, y, (0.0, 3.0))
    scores = act_x_grad(TOWER, image(0), SAE, y)
    for candidate in candidates:
        value = float(scores.values[scores.latents == candidate.edit.latent])
        assert candidate.edit.gain == (0.0 if value < 0 else 3.0)
        assert candidate.estimate == pytest.approx(-value if value < 0 else 2 * value)
    assert [c.estimate for c in candidates] == sorted((c.estimate for c in candidates), reverse=True)


def test_the_search_stays_in_scope() -> None:
    number, wanted = CASES[0]
    scope = Scope("patch_list", (0, 1, 2, 3))
    for suggestion in minimal_sets(TOWER, image(number), SAE, HEAD, wanted, scope=scope, budget=100):
        expected = margin_after(image(number), wanted, suggestion.edits, scope)
        assert suggestion.margin_after == pytest.approx(expected)


def test_the_first_suggestion_comes_before_the_search_is_over() -> None:
    case = max(FOUND, key=lambda c: len(FOUND[c]))
    TOWER.n_suffix_rows = 0
    next(minimal_sets(TOWER, image(case[0]), SAE, HEAD, case[1]))
    early = TOWER.n_suffix_rows
    TOWER.n_suffix_rows = 0
    list(minimal_sets(TOWER, image(case[0]), SAE, HEAD, case[1]))
    assert early < TOWER.n_suffix_rows / 2


def test_the_same_question_gets_the_same_answer() -> None:
    for case in CASES[:3]:
        again = list(minimal_sets(TOWER, image(case[0]), SAE, HEAD, case[1], budget=400))
        assert [s.edits for s in again] == [s.edits for s in FOUND[case]]


@pytest.mark.parametrize("budget", [1, 20])
def test_the_budget_bounds_the_rows_spent_on_finding(budget: int) -> None:
    number, wanted = min(FOUND, key=lambda c: sum(s.flips for s in FOUND[c]))
    TOWER.n_suffix_rows = 0
    list(minimal_sets(TOWER, image(number), SAE, HEAD, wanted, budget=budget))
    # The gradient's row and the unedited one come on top; nothing flips here, so no dose is searched.
    assert TOWER.n_suffix_rows <= budget + 2


def test_bad_questions_are_refused() -> None:
    state = image(0)
    top = HEAD.predictions(TOWER.suffix(state))[0].top
    with pytest.raises(InvalidTarget, match="predicted already"):
        next(minimal_sets(TOWER, state, SAE, HEAD, top))
    with pytest.raises(InvalidTarget, match="'z' is not in"):
        next(minimal_sets(TOWER, state, SAE, HEAD, "z"))
    with pytest.raises(InvalidEdit, match="one image, got 6"):
        next(minimal_sets(TOWER, STATES, SAE, HEAD, "a"))
    for gains in ((), (0.0, 1.0)):
        with pytest.raises(InvalidSettings, match="none of them 1"):
            next(minimal_sets(TOWER, state, SAE, HEAD, wrong_classes(0)[0], gains=gains))
    last = TinyTower(block=2)
    with pytest.raises(EditCannotReachOutput):
        next(minimal_sets(last, state, SAE, HEAD, "a", scope=Scope("patches")))


def test_an_image_in_which_nothing_fires_has_no_suggestion() -> None:
    sae = tiny_sae(bias=-1e6)
    assert list(minimal_sets(TOWER, image(0), sae, HEAD, wrong_classes(0)[0])) == []


def test_the_search_runs_under_inference_mode() -> None:
    number, wanted = CASES[0]
    with torch.inference_mode():
        found = list(minimal_sets(TOWER, image(number), SAE, HEAD, wanted, budget=400))
    assert [s.edits for s in found] == [s.edits for s in FOUND[CASES[0]]]
