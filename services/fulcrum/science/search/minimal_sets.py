"""The fewest latents of one image whose edit makes the wanted class win (SCIENCE.md 5).

Active latents are ranked by their estimated effect, the best of them measured one by one; then subsets are
tried in order of size, then greedy addition with backward pruning. What is found here was found on this very
image: it is evidence about the image, not about data, and never its own proof (SCIENCE.md 8, trap 14).
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import torch

from fulcrum.domain.edits import Scale, Scope
from fulcrum.domain.errors import InvalidEdit, InvalidTarget
from fulcrum.domain.results import Suggestion
from fulcrum.science.attribution.targets import TargetFunction, ZeroShotHead, margin_over_best_other
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import HeldLatents, SparseLatents
from fulcrum.science.search.candidates import Candidate, image_candidates
from fulcrum.science.steering.edits import EditPlan
from fulcrum.science.steering.flips import first_bracket, narrow
from fulcrum.science.steering.forward import steered_embeddings
from fulcrum.science.steering.scopes import check_reaches_output, scope_tokens
from fulcrum.science.vision.split import HookState, SplitTower

# A subset is tried when the single effects of its members add up to this share of the missing margin:
# interaction may double what the sum promises, and trying all subsets of 12 latents would cost 1600 forward
# passes.
_ADDITIVE_SHARE = 0.5
# Proper subsets of a set of 6 are 62 rows, one batch; beyond that minimality is claimed only for what was
# tried.
_PROVABLE_SIZE = 6

_Key = frozenset[int]


def minimal_sets(
    tower: SplitTower,
    state: HookState,
    sae: Sae,
    head: ZeroShotHead,
    wanted: str,
    *,
    scope: Scope | None = None,
    gains: Sequence[float] = (0.0,),
    max_latents: int = 5,
    n_ranked: int = 32,
    n_pool: int = 12,
    n_alternatives: int = 5,
    budget: int = 1024,
    tolerance: float = 0.02,
    batch_size: int = 64,
    sparse: SparseLatents | None = None,
) -> Iterator[Suggestion]:
    """Alternative sets of edits after which `wanted` is predicted, as they are found; smaller ones first.

    `gains` are what a latent may be scaled by: 0 suppresses, and with a gain above 1 latents that speak for
    the wanted class may be amplified. `n_ranked` candidates are measured singly, the `n_pool` best combined;
    at most `budget` suffix rows are spent on finding. `minimal` is only set where every proper subset was
    measured. `dose_interval`: gains between which the set starts to flip, to `tolerance`; None for sets of
    mixed gains. When nothing flips, the set that came nearest is yielded with `flips` False; nothing at all
    only when no edit is estimated to help.

    Raises InvalidTarget for an unknown class or when `wanted` is predicted already, EditCannotReachOutput.
    """
    scope = scope or Scope()
    check_reaches_output(tower, scope)
    if state.x.shape[0] != 1:
        raise InvalidEdit(f"the search is over one image, got {state.x.shape[0]}")
    margin = margin_over_best_other(head, wanted)
    if sparse is None:
        with torch.no_grad():
            sparse = sae.encode_sparse(state.x[0].to(sae.W_dec.dtype))
    before, candidates = image_candidates(
        tower, state, sae, margin, gains, scope_tokens(tower, scope, state.x.device), sparse
    )
    if before > 0:
        raise InvalidTarget(f"class {wanted!r} is predicted already, by a margin of {before:.4g}")

    held = HeldLatents(sparse, state.x.shape[1])
    measure = _Measure(tower, state, sae, margin, scope, candidates[:n_ranked], budget, batch_size, held)
    found: list[_Key] = []
    for key, minimal in _flipping_sets(measure, before, max_latents, n_pool, n_alternatives):
        found.append(key)
        yield measure.suggestion(key, before, minimal, measure.dose(key, before, tolerance))
    if not found and measure.margins:
        nearest = max(measure.margins, key=lambda k: (measure.margins[k], -len(k), sorted(k, reverse=True)))
        if measure.margins[nearest] > before:
            yield measure.suggestion(nearest, before, False, None)


class _Measure:
    """Margins of sets of candidates, each measured once; a set is known by its candidates' numbers."""

    def __init__(
        self,
        tower: SplitTower,
        state: HookState,
        sae: Sae,
        margin: TargetFunction,
        scope: Scope,
        candidates: list[Candidate],
        budget: int,
        batch_size: int,
        held: HeldLatents,
    ) -> None:
        self.tower, self.state, self.sae, self.margin, self.scope = tower, state, sae, margin, scope
        self.candidates = candidates
        self.budget = budget
        self.batch_size = batch_size
        self.held = held
        self.margins: dict[_Key, float] = {}
        self._before: torch.Tensor | None = None

    def __call__(self, keys: Sequence[_Key]) -> list[_Key]:
        """Measures what is not known yet, as far as the budget goes; returns the keys then known."""
        new = [key for key in dict.fromkeys(keys) if key not in self.margins][: max(0, self.budget)]
        self.budget -= len(new)
        plans = [EditPlan(self.edits(key), self.scope) for key in new]
        if plans:
            self.margins.update(zip(new, self._run(plans), strict=True))
        return [key for key in dict.fromkeys(keys) if key in self.margins]

    def edits(self, key: _Key) -> tuple[Scale, ...]:
        """In the order of the candidates, the strongest first."""
        return tuple(self.candidates[i].edit for i in sorted(key))

    def flips(self, key: _Key) -> bool:
        """Whether a measured set makes the wanted class win."""
        return self.margins[key] > 0

    def dose(self, key: _Key, before: float, tolerance: float) -> tuple[float, float] | None:
        """Gains around the first flip walking from 1 to the set's gain, the estimated dose among the grid."""
        gains = {edit.gain for edit in self.edits(key)}
        if len(gains) > 1:
            return None
        full = gains.pop()
        # Linear estimate of how much of the way is needed: m / |z dm/dz|.
        share = -before / sum(self.candidates[i].estimate for i in key)
        steps = sorted({*np.linspace(0.125, 1.0, 8).tolist(), min(1.0, share)})

        def flips(at: Sequence[float]) -> list[bool]:
            plans = [
                EditPlan(tuple(Scale(self.candidates[i].edit.latent, g) for i in sorted(key)), self.scope)
                for g in at
            ]
            return [m > 0 for m in self._run(plans)]

        grid = [1 + step * (full - 1) for step in steps]
        bracket = first_bracket(grid, flips(grid))
        if bracket is None:
            return None
        low, high = narrow(bracket, flips, tolerance)
        return min(low, high), max(low, high)

    def suggestion(
        self, key: _Key, before: float, minimal: bool, dose: tuple[float, float] | None
    ) -> Suggestion:
        """The set as a value."""
        return Suggestion(
            edits=self.edits(key),
            minimal=minimal,
            margin_before=before,
            margin_after=self.margins[key],
            flips=self.flips(key),
            dose_interval=dose,
            estimated_effect=sum(self.candidates[i].estimate for i in key),
        )

    def _run(self, plans: list[EditPlan]) -> list[float]:
        steered = steered_embeddings(
            self.tower,
            self.state,
            self.sae,
            plans,
            before=self._before,
            batch_size=self.batch_size,
            held=self.held,
        )
        self._before = steered.before
        with torch.no_grad():
            margins: list[float] = self.margin(steered.after).double().tolist()
        return margins


def _flipping_sets(
    measure: _Measure, before: float, max_latents: int, n_pool: int, n_alternatives: int
) -> Iterator[tuple[_Key, bool]]:
    """Distinct flipping sets, none holding another, with whether each is proven minimal."""
    found: list[_Key] = []

    def is_new(key: _Key) -> bool:
        return not any(other <= key for other in found)

    singles = measure([frozenset({i}) for i in range(len(measure.candidates))])
    singles.sort(key=lambda key: -measure.margins[key])
    for key in singles:
        if measure.flips(key) and len(found) < n_alternatives:
            found.append(key)
            yield key, True
    gain = {min(key): measure.margins[key] - before for key in singles}
    pool = [min(key) for key in singles if gain[min(key)] > 0 and not measure.flips(key)][:n_pool]

    for size in range(2, max_latents + 1):
        for batch in _in_batches(_promising(pool, gain, size, -before), measure.batch_size):
            if len(found) >= n_alternatives or measure.budget <= 0:
                break
            for key in measure([key for key in batch if is_new(key)]):
                if measure.flips(key) and len(found) < n_alternatives:
                    smallest, minimal = _shrunk(measure, key)
                    if is_new(smallest):
                        found.append(smallest)
                        yield smallest, minimal

    banned: set[int] = set()
    while len(found) < n_alternatives and measure.budget > 0:
        grown = _greedy(measure, [i for i in gain if i not in banned], max_latents)
        if grown is None:
            return
        smallest, minimal = _shrunk(measure, grown)
        banned.add(min(smallest))
        if is_new(smallest):
            found.append(smallest)
            yield smallest, minimal


def _promising(pool: list[int], gain: dict[int, float], size: int, missing: float) -> list[_Key]:
    """Subsets whose single effects add up to enough, the largest sums first."""
    sums = ((sum(gain[i] for i in subset), subset) for subset in combinations(pool, size))
    enough = [(total, subset) for total, subset in sums if total >= _ADDITIVE_SHARE * missing]
    return [frozenset(subset) for _, subset in sorted(enough, key=lambda s: (-s[0], s[1]))]


def _in_batches(keys: list[_Key], batch_size: int) -> Iterator[list[_Key]]:
    for start in range(0, len(keys), batch_size):
        yield keys[start : start + batch_size]


def _greedy(measure: _Measure, candidates: list[int], max_latents: int) -> _Key | None:
    """Adds whatever raises the margin most until the set flips; None when it does not within the bounds."""
    key: _Key = frozenset()
    while len(key) < max_latents:
        larger = measure([key | {i} for i in candidates if i not in key])
        if not larger:
            return None
        best = max(larger, key=lambda k: (measure.margins[k], -min(k - key)))
        if key and measure.margins[best] <= measure.margins[key]:
            return None
        key = best
        if measure.flips(key):
            return key
    return None


def _shrunk(measure: _Measure, key: _Key) -> tuple[_Key, bool]:
    """The smallest flipping subset of a flipping set, and whether it is proven that no smaller one flips."""
    while len(key) > _PROVABLE_SIZE:
        # Backward pruning, one latent at a time: all subsets would be too many.
        without = [k for k in measure([key - {i} for i in key]) if measure.flips(k)]
        if not without:
            return key, False
        key = max(without, key=lambda k: measure.margins[k])
    subsets = [frozenset(s) for size in range(1, len(key)) for s in combinations(sorted(key), size)]
    known = measure(subsets)
    flipping = [k for k in known if measure.flips(k)]
    if flipping:
        # The smallest flipping subset has no flipping subset of its own, as those were measured too.
        key = min(flipping, key=lambda k: (len(k), -measure.margins[k]))
    n_proper = 2 ** len(key) - 2
    return key, sum(k < key for k in known) == n_proper
