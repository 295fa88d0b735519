"""The greedy search for edits which mend a failure group at little cost to clean images (SCIENCE.md 5).

The rule is Dyslexify's (ICLR 2026): accept when the group gains at least 0.1 points, never let clean accuracy
fall by a point, stop after 10 rejections. Two things are done differently, both because evaluations come in
batches:

* A round tries the best candidates singly *and* nested blocks of them (2, 4, 8 ... together). A written word
is read
  by several latents, and a group of twelve words by dozens: one at a time most of them gain nothing
  measurable, together they do.
* Whatever came in with a block has to earn its place in the backward elimination: a latent whose removal does
  not cost the group 0.1 points goes.

The search knows neither model nor images. It speaks to `evaluate` and `rank`; `group_images.HeldGroup` is
both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Edit, Scale
from fulcrum.domain.errors import InvalidDataset, InvalidSettings
from fulcrum.domain.results import GroupSuggestion

Edits = tuple[Edit, ...]
Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class GroupEvaluation:
    """Images that each edit set leaves right; `group_margin` (mean over the group) breaks ties."""

    group_correct: Bool[np.ndarray, "n_sets n_group"]
    clean_correct: Bool[np.ndarray, "n_sets n_clean"]
    group_margin: Float[np.ndarray, " n_sets"] | None = None


@runtime_checkable
class Evaluate(Protocol):
    """Predictions of all images under every edit set of a batch."""

    def __call__(self, edit_sets: Sequence[Edits]) -> GroupEvaluation:
        """One row per edit set, in their order; the empty set is the unedited model."""
        ...


@runtime_checkable
class Rank(Protocol):
    """Proposes further edits."""

    def __call__(self, edits: Edits, failing: Int[np.ndarray, " n"]) -> Sequence[Edit]:
        """Best first, for the images of the group (by number) which `edits` leave wrong."""
        ...


@dataclass(frozen=True)
class GroupResult:
    """The edits found on the discovery split, what they did there, and every step; it proves nothing yet."""

    edits: Edits
    group_accuracy_before: float
    group_accuracy_after: float
    clean_accuracy_before: float
    clean_accuracy_after: float
    path: tuple[dict[str, Any], ...]
    n_evaluated: int

    def suggestion(self, correction: Correction) -> GroupSuggestion:
        """As the domain's value; `correction` must hold these edits."""
        if correction.edits != self.edits:
            raise InvalidSettings("the correction does not hold the edits which the search found")
        return GroupSuggestion(
            correction,
            self.group_accuracy_before,
            self.group_accuracy_after,
            self.clean_accuracy_before,
            self.clean_accuracy_after,
            self.path,
            self.n_evaluated,
        )


@dataclass(frozen=True)
class _State:
    edits: Edits
    failing: Int[np.ndarray, " n"]
    group: float
    clean: float
    margin: float

    def better_than(self, other: "_State") -> bool:
        """By points gained net of clean points lost, then by margin, then by fewer edits."""
        mine = (self.group + self.clean, self.margin, -len(self.edits))
        return mine > (other.group + other.clean, other.margin, -len(other.edits))


def group_search(
    evaluate: Evaluate,
    rank: Rank,
    *,
    min_gain: float = 0.001,
    max_clean_loss: float = 0.01,
    max_rejections: int = 10,
    max_edits: int = 64,
    width: int = 8,
    budget: int = 2000,
    doses: Sequence[float] = (),
    n_passes: int = 2,
    progress: Progress | None = None,
) -> GroupResult:
    """Edits that mend the group: forward rounds, then backward elimination, at most `n_passes` times over.

    `min_gain` and `max_clean_loss` are shares (0.001 is 0.1 points). `width` candidates are tried singly per
    round. Rejections count in a row: an accepted edit changes the ranking, so what follows deserves its own
    chances. `budget` bounds the edit sets evaluated. `doses`: gains tried at the end on all scale edits
    together. `progress` gets every step of the path as it is made. Same answers from `evaluate` and `rank`:
    same result.
    Raises InvalidDataset for an empty group or no clean images, InvalidSettings.
    """
    if not 0 < max_clean_loss <= 1 or not 0 < min_gain <= 1:
        raise InvalidSettings(f"min_gain={min_gain} and max_clean_loss={max_clean_loss} must be in (0, 1]")
    if min(max_rejections, max_edits, width, budget, n_passes) < 1:
        raise InvalidSettings(
            f"max_rejections={max_rejections}, max_edits={max_edits}, width={width}, budget={budget} and "
            f"n_passes={n_passes} must be >= 1"
        )
    search = _GroupSearch(evaluate, rank, min_gain, max_clean_loss, budget, progress)
    state = search.start
    for _ in range(n_passes):
        grown = search.forward(state, max_rejections, max_edits, width)
        pruned = search.backward(grown)
        done = {e.latent for e in pruned.edits} == {e.latent for e in state.edits}
        state = pruned
        if done:
            break
    state = search.choose_dose(state, doses)
    return GroupResult(
        state.edits,
        search.start.group,
        state.group,
        search.start.clean,
        state.clean,
        tuple(search.path),
        search.n_evaluated,
    )


class _GroupSearch:
    """Evaluations, limits and the path of one search."""

    def __init__(
        self,
        evaluate: Evaluate,
        rank: Rank,
        min_gain: float,
        max_clean_loss: float,
        budget: int,
        progress: Progress | None,
    ) -> None:
        self.evaluate, self.rank, self.progress = evaluate, rank, progress
        self.min_gain, self.max_clean_loss, self.budget = min_gain, max_clean_loss, budget
        self.n_evaluated = 0
        self.path: list[dict[str, Any]] = []
        (self.start,) = self.states([()])

    def states(self, edit_sets: Sequence[Edits]) -> list[_State]:
        """Evaluates as many as the budget allows."""
        edit_sets = edit_sets[: max(0, self.budget - self.n_evaluated)]
        if not edit_sets:
            return []
        result = self.evaluate(edit_sets)
        self.n_evaluated += len(edit_sets)
        if 0 in result.group_correct.shape or 0 in result.clean_correct.shape:
            raise InvalidDataset(
                f"the search needs images that fail and clean ones, got {result.group_correct.shape[1]} "
                f"and {result.clean_correct.shape[1]}"
            )
        margins = np.zeros(len(edit_sets)) if result.group_margin is None else result.group_margin
        return [
            _State(
                edits,
                np.flatnonzero(~result.group_correct[i]),
                float(result.group_correct[i].mean()),
                float(result.clean_correct[i].mean()),
                float(margins[i]),
            )
            for i, edits in enumerate(edit_sets)
        ]

    def admissible(self, state: _State) -> bool:
        """Whether clean accuracy is still within the limit."""
        # Accuracies are counts over n: a hair of slack keeps 10 of 1000 from passing as less than 0.01.
        return self.start.clean - state.clean < self.max_clean_loss - 1e-9

    def gains(self, state: _State, over: _State) -> bool:
        """Whether the group gained enough."""
        return state.group - over.group >= self.min_gain - 1e-9

    def forward(self, state: _State, max_rejections: int, max_edits: int, width: int) -> _State:
        """Adds single edits or blocks until nothing helps."""
        rejected: set[int] = set()
        n_rejected = 0
        while len(state.failing) and len(state.edits) < max_edits and n_rejected < max_rejections:
            used = {e.latent for e in state.edits} | rejected
            ranked = [e for e in self.rank(state.edits, state.failing) if e.latent not in used]
            room = max_edits - len(state.edits)
            singles = ranked[: min(width, max_rejections - n_rejected)]
            most = min(len(ranked), room)
            sizes = [2**k for k in range(1, 12) if 2**k < most] + ([most] if most > 1 else [])
            trials = self.states(
                [(*state.edits, e) for e in singles] + [(*state.edits, *ranked[:size]) for size in sizes]
            )
            good = [t for t in trials if self.admissible(t) and self.gains(t, state)]
            if good:
                best = good[0]
                for trial in good[1:]:
                    best = trial if trial.better_than(best) else best
                added = [e.latent for e in best.edits[len(state.edits) :]]
                state, n_rejected = best, 0
                rejected.clear()
                self.log("accept", added, state)
            elif trials:
                latents = [e.latent for e in singles]
                rejected.update(latents)
                n_rejected += len(latents)
                self.log("reject", latents, state)
            else:
                break  # nothing left to propose, or no budget
        return state

    def backward(self, state: _State) -> _State:
        """Drops edits, many at once where possible, while the group loses less than `min_gain` in all."""
        floor = state.group - self.min_gain + 1e-9
        while len(state.edits) > 1:
            without = self.states([_without(state.edits, {e.latent}) for e in state.edits])
            if len(without) < len(state.edits):
                break
            pairs = list(zip(state.edits, without, strict=True))
            idle = [(e, w) for e, w in pairs if w.group > floor and self.admissible(w)]
            if not idle:
                break
            idle.sort(key=lambda p: (-(p[1].group + p[1].clean), -p[1].margin, p[0].latent))
            sizes = [2**k for k in range(1, 12) if 2**k < len(idle)]
            sizes += [len(idle)] if 1 < len(idle) < len(state.edits) else []
            blocks = self.states([_without(state.edits, {e.latent for e, _ in idle[:n]}) for n in sizes])
            good = [b for b in blocks if b.group > floor and self.admissible(b)]
            smaller = min(good, key=lambda b: len(b.edits)) if good else idle[0][1]
            gone = sorted({e.latent for e in state.edits} - {e.latent for e in smaller.edits})
            state = smaller
            self.log("remove", gone, state)
        return state

    def choose_dose(self, state: _State, doses: Sequence[float]) -> _State:
        """The gain which serves best on all scale edits together; theirs unless another is better."""
        if not doses or not state.edits:
            return state
        for trial in self.states(
            [
                tuple(replace(e, gain=float(gain)) if isinstance(e, Scale) else e for e in state.edits)
                for gain in doses
            ]
        ):
            if self.admissible(trial) and trial.better_than(state):
                state = trial
                self.log("dose", [e.latent for e in state.edits], state)
        return state

    def log(self, action: str, latents: list[int], state: _State) -> None:
        """One step of the path."""
        step = {
            "action": action,
            "latents": latents,
            "n_edits": len(state.edits),
            "group_accuracy": state.group,
            "clean_accuracy": state.clean,
            "n_evaluated": self.n_evaluated,
        }
        self.path.append(step)
        if self.progress is not None:
            self.progress(step)


def _without(edits: Edits, latents: set[int]) -> Edits:
    return tuple(e for e in edits if e.latent not in latents)
