"""The greedy search on made-up worlds whose right answer is known."""

from collections.abc import Sequence

import numpy as np
import pytest

from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Edit, Scale
from fulcrum.domain.errors import InvalidDataset, InvalidSettings
from fulcrum.science.search.group import Edits, GroupEvaluation, group_search


class World:
    """Each failing image needs certain latents gone; each clean image breaks when one of its latents is.

    Ranks by how many failing images need a latent, so that decoys can be put first.
    """

    def __init__(
        self, needs: Sequence[set[int]], breaks: Sequence[set[int]], decoys: Sequence[int] = ()
    ) -> None:
        self.needs, self.breaks, self.decoys = needs, breaks, decoys
        self.evaluated: list[Edits] = []
        self.asked: list[tuple[Edits, list[int]]] = []

    def evaluate(self, edit_sets: Sequence[Edits]) -> GroupEvaluation:
        self.evaluated.extend(edit_sets)
        gone = [{e.latent for e in edits if e.gain <= 0.5} for edits in edit_sets]
        return GroupEvaluation(
            np.array([[bool(need) and need <= g for need in self.needs] for g in gone]),
            np.array([[not (broken & g) for broken in self.breaks] for g in gone]),
        )

    def rank(self, edits: Edits, failing: np.ndarray) -> list[Edit]:
        self.asked.append((edits, failing.tolist()))
        counts: dict[int, int] = {}
        for i in failing:
            for latent in self.needs[i]:
                counts[latent] = counts.get(latent, 0) + 1
        best = sorted(counts, key=lambda n: (-counts[n], n))
        return [Scale(n, 0.0) for n in [*self.decoys, *best]]


def latents(edits: Edits) -> set[int]:
    return {e.latent for e in edits}


CLEAN: list[set[int]] = [set()] * 1000


def test_latents_which_mend_the_group_are_found_and_nothing_else_is_kept() -> None:
    world = World([{1}] * 50 + [{2}] * 30 + [{3}] * 20, CLEAN, decoys=range(100, 103))
    found = group_search(world.evaluate, world.rank)
    assert latents(found.edits) == {1, 2, 3}
    assert (found.group_accuracy_before, found.group_accuracy_after) == (0.0, 1.0)
    assert (found.clean_accuracy_before, found.clean_accuracy_after) == (1.0, 1.0)


def test_latents_that_only_help_together_are_found_as_a_block() -> None:
    """A word read by four latents: each of them alone mends nothing, and one at a time all would be rejected."""
    world = World([{1, 2, 3, 4}] * 40 + [{5, 6, 7, 8}] * 40, CLEAN)
    found = group_search(world.evaluate, world.rank)
    assert latents(found.edits) == set(range(1, 9))
    assert found.group_accuracy_after == 1.0


def test_forty_latents_are_accepted_and_pruned_in_few_evaluations() -> None:
    rng = np.random.default_rng(0)
    needs = [set(rng.choice(40, 3, replace=False).tolist()) for _ in range(300)]
    world = World(needs, CLEAN, decoys=range(1000, 1005))
    found = group_search(world.evaluate, world.rank)
    assert latents(found.edits) == set(range(40))
    assert found.n_evaluated == len(world.evaluated) < 250


def test_clean_accuracy_never_falls_by_the_limit() -> None:
    # Latent 1 would mend most but costs 2 points of 1000 clean images; latents 2 and 3 cost 0.5 each.
    clean = [{1}] * 20 + [{2}] * 5 + [{3}] * 5 + [set()] * 970
    world = World([{1}] * 60 + [{2}] * 30 + [{3}] * 10, clean)
    found = group_search(world.evaluate, world.rank)
    assert latents(found.edits) == {2}  # with 3 as well the loss would be a whole point
    assert found.clean_accuracy_after == pytest.approx(0.995)
    generous = group_search(world.evaluate, world.rank, max_clean_loss=0.011)
    assert latents(generous.edits) == {2, 3}


def test_a_gain_below_a_tenth_of_a_point_is_not_accepted_and_one_of_it_is() -> None:
    world = World([{1}] + [set()] * 1000, CLEAN)  # 1 of 1001
    assert group_search(world.evaluate, world.rank).edits == ()
    world = World([{1}] + [set()] * 999, CLEAN)  # 1 of 1000
    assert latents(group_search(world.evaluate, world.rank).edits) == {1}


def test_the_search_stops_after_ten_rejections_in_a_row() -> None:
    world = World([{1}] * 10, CLEAN, decoys=range(100, 200))
    found = group_search(world.evaluate, world.rank, max_edits=8)
    assert found.edits == ()
    rejected = [step for step in found.path if step["action"] == "reject"]
    assert sum(len(step["latents"]) for step in rejected) == 10


def test_an_accepted_edit_clears_the_rejections() -> None:
    world = World([{1}] * 10 + [{2}] * 10, CLEAN, decoys=range(100, 107))
    found = group_search(world.evaluate, world.rank, max_rejections=8, max_edits=8, width=8)
    assert latents(found.edits) == {1, 2}


def test_the_ranking_is_asked_again_for_what_still_fails() -> None:
    world = World([{1}] * 50 + [{2}] * 30, CLEAN)
    group_search(world.evaluate, world.rank, width=1, max_edits=1)
    assert world.asked[0] == ((), list(range(80)))
    world = World([{1}] * 50 + [{2, 3, 4}] * 30, [{4}] * 20 + [set()] * 100)
    group_search(world.evaluate, world.rank, width=1)
    assert any(latents(edits) == {1} and failing == list(range(50, 80)) for edits, failing in world.asked)


def test_what_came_in_with_a_block_and_does_nothing_is_dropped_again() -> None:
    world = World([{1, 2}] * 50, CLEAN, decoys=(100, 101))
    found = group_search(world.evaluate, world.rank)
    assert latents(found.edits) == {1, 2}
    assert any(step["action"] == "remove" and 100 in step["latents"] for step in found.path)


def test_backward_elimination_repairs_clean_images() -> None:
    world = World([{1, 2}] * 50, [{100}] * 5 + [set()] * 995, decoys=(100,))
    found = group_search(world.evaluate, world.rank)
    assert latents(found.edits) == {1, 2}
    assert found.clean_accuracy_after == 1.0


def test_all_that_is_removed_together_costs_less_than_the_smallest_gain_counted() -> None:
    # 30 latents that mend one image of 2000 each: 0.05 points, below the limit one by one, 1.5 points together.
    world = World([{n} for n in range(30)] + [set()] * 1970, CLEAN)
    found = group_search(world.evaluate, world.rank, n_passes=1)
    assert found.group_accuracy_after > 30 / 2000 - 0.001


def test_a_weaker_dose_is_chosen_when_it_serves_as_well() -> None:
    class Dosed(World):
        def evaluate(self, edit_sets: Sequence[Edits]) -> GroupEvaluation:
            plain = super().evaluate(edit_sets)
            strong = np.array([[any(e.gain < 0.3 for e in edits)] for edits in edit_sets])
            clean = plain.clean_correct & ~(strong & (np.arange(len(self.breaks)) < 4)[None])
            return GroupEvaluation(plain.group_correct, clean)

    world = Dosed([{1}] * 10, CLEAN)
    found = group_search(world.evaluate, world.rank, doses=(0.5, 0.75))
    assert found.edits == (Scale(1, 0.5),)
    assert found.clean_accuracy_after == 1.0
    assert group_search(world.evaluate, world.rank).clean_accuracy_after == pytest.approx(0.996)


def test_ties_are_broken_by_the_margin_of_the_group() -> None:
    class WithMargin(World):
        def evaluate(self, edit_sets: Sequence[Edits]) -> GroupEvaluation:
            plain = super().evaluate(edit_sets)
            margin = np.array([float(2 in latents(edits)) for edits in edit_sets])
            return GroupEvaluation(plain.group_correct, plain.clean_correct, margin)

    class OrBoth(WithMargin):
        def evaluate(self, edit_sets: Sequence[Edits]) -> GroupEvaluation:
            found = super().evaluate(edit_sets)
            mended = np.array([[bool(latents(e) & {1, 2})] * 10 for e in edit_sets])
            return GroupEvaluation(mended, found.clean_correct, found.group_margin)

    world = OrBoth([{1, 2}] * 10, CLEAN)
    assert latents(group_search(world.evaluate, world.rank).edits) == {2}


@pytest.mark.parametrize("budget", [1, 5, 40])
def test_the_budget_bounds_the_evaluations(budget: int) -> None:
    world = World([{n} for n in range(30)], CLEAN)
    found = group_search(world.evaluate, world.rank, budget=budget)
    assert found.n_evaluated == len(world.evaluated) <= budget


def test_progress_is_the_path_as_it_is_made() -> None:
    steps: list[dict] = []
    world = World([{1}] * 10 + [{2}] * 5, CLEAN)
    found = group_search(world.evaluate, world.rank, progress=steps.append)
    assert tuple(steps) == found.path
    assert steps[0]["action"] == "accept"
    assert [s["n_evaluated"] for s in steps] == sorted(s["n_evaluated"] for s in steps)


def test_the_same_world_gives_the_same_answer_step_by_step() -> None:
    def run() -> object:
        rng = np.random.default_rng(1)
        needs = [set(rng.choice(12, 2, replace=False).tolist()) for _ in range(60)]
        world = World(needs, [{3}] * 2 + [set()] * 300)
        return group_search(world.evaluate, world.rank)

    assert run() == run()


def test_a_group_without_failures_needs_no_edits() -> None:
    class Right(World):
        def evaluate(self, edit_sets: Sequence[Edits]) -> GroupEvaluation:
            n = len(edit_sets)
            return GroupEvaluation(np.ones((n, 5), dtype=bool), np.ones((n, 5), dtype=bool))

    found = group_search(Right([], []).evaluate, Right([], []).rank)
    assert found.edits == ()
    assert found.path == ()


def test_a_search_without_images_is_refused() -> None:
    for needs, breaks in ([], [set()]), ([{1}], []):
        world = World(needs, breaks)

        def evaluate(edit_sets: Sequence[Edits], needs=needs, breaks=breaks) -> GroupEvaluation:
            n = len(edit_sets)
            return GroupEvaluation(
                np.zeros((n, len(needs)), dtype=bool), np.ones((n, len(breaks)), dtype=bool)
            )

        with pytest.raises(InvalidDataset, match="images that fail and clean ones"):
            group_search(evaluate, world.rank)


@pytest.mark.parametrize(
    "setting", ["min_gain", "max_clean_loss", "max_rejections", "max_edits", "width", "budget", "n_passes"]
)
def test_settings_that_make_no_sense_are_refused(setting: str) -> None:
    world = World([{1}], CLEAN)
    with pytest.raises(InvalidSettings, match=setting):
        group_search(world.evaluate, world.rank, **{setting: 0})


def test_a_suggestion_holds_the_edits_that_were_found_or_is_refused() -> None:
    world = World([{1}] * 10, CLEAN)
    found = group_search(world.evaluate, world.rank)
    right = Correction("m", "s", "visual.blocks.0.resid_post", found.edits)
    suggestion = found.suggestion(right)
    assert suggestion.correction == right
    assert suggestion.group_accuracy_after == 1.0
    assert suggestion.n_evaluated == found.n_evaluated
    with pytest.raises(InvalidSettings):
        found.suggestion(Correction("m", "s", "visual.blocks.0.resid_post", ()))
