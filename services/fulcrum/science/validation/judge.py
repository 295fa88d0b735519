"""The gates of a validation, each built from the numbers it rests on."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from fulcrum.science.validation.calibration import CalibrationScore
from fulcrum.science.validation.comparison import PairedComparison, net_interval, net_per_image
from fulcrum.science.validation.flips import BROKEN
from fulcrum.science.validation.gates import Gate, State, above, below
from fulcrum.science.validation.groups import Group, Members
from fulcrum.science.validation.intervals import Interval, effective_size, rate_bound
from fulcrum.science.validation.power import (
    images_for_clean_bound,
    images_for_effect,
    images_for_loss,
    images_for_rate,
    images_for_width,
)
from fulcrum.science.validation.specification import ProtectedGroup, Specification

UNSEEN_TARGETS = "unseen images of the failure mode"


def efficacy_gate(comparison: PairedComparison | None, spec: Specification) -> Gate:
    """Passes when the net gain on unseen images of the failure mode is proven to reach `min_gain`.

    Fails when it is proven to stay below. Both ends of the two-sided interval, and McNemar's p for a pass.
    """
    if comparison is None:
        return Gate(
            "efficacy",
            "benefit",
            "undecided",
            "no unseen labelled image of the failure mode",
            margin=spec.min_gain,
            population=UNSEEN_TARGETS,
        )
    c = comparison
    state = above(c.interval.low, c.interval.high, spec.min_gain)
    if state == "pass" and c.p > spec.alpha:
        state = "undecided"
    distance = abs(c.net - spec.min_gain)
    psi = min(1.0, max((c.broken + c.fixed + 1) / (c.n + 2), distance))
    needs = images_for_effect(distance, psi, spec.alpha, spec.power)
    return Gate(
        "efficacy",
        "benefit",
        state,
        f"net gain {_points(c.net)} points [{_points(c.interval.low)}, {_points(c.interval.high)}] on {c.n} "
        f"{UNSEEN_TARGETS}, at least {_points(spec.min_gain)} wanted; "
        f"{c.fixed} fixed, {c.broken} broken, p = {c.p:.3g}",
        estimate=c.net,
        low=c.interval.low,
        high=c.interval.high,
        margin=spec.min_gain,
        n=c.n,
        population=UNSEEN_TARGETS,
        needs_n=_more(needs, c) if state == "undecided" else None,
    )


def harm_gate(comparison: PairedComparison, spec: Specification) -> Gate:
    """Passes when the one-sided upper bound of the NFR over all images is within `harm_margin`."""
    c, bound = comparison, comparison.nfr_bound
    state = below(bound.lower, bound.upper, spec.harm_margin)
    needs = images_for_rate(bound.rate, spec.harm_margin, spec.alpha)
    return Gate(
        "harm",
        "harm",
        state,
        f"{c.broken} of {c.n} broken: NFR {_points(bound.rate)} points, at most {_points(bound.upper)} "
        f"(allowed {_points(spec.harm_margin)})",
        estimate=bound.rate,
        low=bound.lower,
        high=bound.upper,
        margin=spec.harm_margin,
        n=c.n,
        population="images",
        needs_n=_scaled(needs, c.n, bound.n_effective) if state == "undecided" else None,
    )


def clean_loss_gate(
    outcome: Int[np.ndarray, " n"], clusters: Int[np.ndarray, " n"] | None, spec: Specification
) -> Gate:
    """Non-inferiority of accuracy on images without the failure mode.

    The loss is at most `clean_loss_margin`. One-sided bounds at alpha. The margin must be set; the images are
    labelled and given as `flips.outcomes`.
    """
    margin, population = spec.clean_loss_margin or 0.0, "images without the failure mode"
    n = len(outcome)
    if n == 0:
        return Gate(
            "clean_loss",
            "harm",
            "undecided",
            f"no labelled {population}",
            margin=margin,
            population=population,
        )
    net = float(net_per_image(outcome).mean())
    interval = net_interval(outcome, clusters, 1 - 2 * spec.alpha)
    low, high = -interval.high, -interval.low
    state = below(low, high, margin)
    return Gate(
        "clean_loss",
        "harm",
        state,
        f"accuracy changed by {_points(net)} points on {n} {population}: a loss of at most {_points(high)} "
        f"(allowed {_points(margin)})",
        estimate=-net,
        low=low,
        high=high,
        margin=margin,
        n=n,
        population=population,
        needs_n=_for_loss(outcome, clusters, margin, spec.alpha, spec.alpha)
        if state == "undecided"
        else None,
    )


def protected_gate(
    group: ProtectedGroup,
    outcome: Int[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None,
    spec: Specification,
) -> Gate:
    """Non-inferiority of the NFR in one protected group, given by the outcomes of its labelled images.

    The bound of a pass holds at alpha (all groups must pass), the bound of a fail at alpha over the number of
    groups.
    """
    name, population = f"harm: {group.column}={group.value}", f"images with {group.column}={group.value}"
    n = len(outcome)
    if n < spec.min_group_size:
        return Gate(
            name,
            "harm",
            "undecided",
            f"{n} {population}: below {spec.min_group_size} there is no verdict",
            margin=group.margin,
            n=n,
            population=population,
            needs_n=images_for_clean_bound(group.margin, spec.alpha) if n else None,
        )
    bound = rate_bound(outcome == BROKEN, clusters, spec.alpha)
    strict = rate_bound(outcome == BROKEN, clusters, spec.alpha / max(1, len(spec.protected_groups)))
    state = below(strict.lower, max(bound.upper, strict.lower), group.margin)
    needs = images_for_rate(bound.rate, group.margin, spec.alpha)
    return Gate(
        name,
        "harm",
        state,
        f"{bound.count} of {n} broken: NFR {_points(bound.rate)} points, at most {_points(bound.upper)} "
        f"(allowed {_points(group.margin)})",
        estimate=bound.rate,
        low=strict.lower,
        high=bound.upper,
        margin=group.margin,
        n=n,
        population=population,
        needs_n=_scaled(needs, n, bound.n_effective) if state == "undecided" else None,
    )


def worst_group_gate(
    groups: Sequence[Members],
    outcome: Int[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None,
    spec: Specification,
) -> Gate | None:
    """Passes when no group of `min_group_size` or more can have lost more than `worst_group_margin`.

    None without one. Bounds are those of the group that decides: for a pass and undecided the one with the
    largest possible loss. One-sided at alpha for passing (every group must), at alpha over the number of
    groups for failing.
    """
    margin = spec.worst_group_margin or 0.0
    judged = [(g, images) for g, images in groups if len(images) >= spec.min_group_size]
    if not judged:
        return None
    family = spec.alpha / len(judged)
    found: list[tuple[State, float, Group, int, float, float]] = []
    for group, images in judged:
        here, inside = outcome[images], None if clusters is None else clusters[images]
        loss = -float(net_per_image(here).mean())
        high = -net_interval(here, inside, 1 - 2 * spec.alpha).low
        low = -net_interval(here, inside, 1 - 2 * family).high
        found.append((below(low, high, margin), loss, group, len(images), low, high))
    state: State = "pass"
    if any(f[0] == "fail" for f in found):
        state = "fail"
    elif any(f[0] == "undecided" for f in found):
        state = "undecided"
    _, loss, group, n, low, high = max((f for f in found if f[0] == state), key=lambda f: f[5])
    needs = None
    if state == "undecided":
        # The mixture stays: the group that needs most images decides how often the data set must be repeated.
        wanted = [
            (
                _for_loss(outcome[x], None if clusters is None else clusters[x], margin, spec.alpha, family),
                len(x),
            )
            for (_, x), f in zip(judged, found, strict=True)
            if f[0] == "undecided"
        ]
        factors = [w / size for w, size in wanted if w is not None]
        needs = math.ceil(n * max(factors)) if len(factors) == len(wanted) else None
    return Gate(
        "worst_group",
        "harm",
        state,
        f"{group.name} ({n} images) changed by {_points(-loss)} points: a loss of at most {_points(high)} "
        f"(allowed {_points(margin)}); {len(judged)} groups judged",
        estimate=loss,
        low=low,
        high=high,
        margin=margin,
        n=n,
        population=f"images with {group.name}",
        needs_n=needs,
    )


def ripple_gate(p95: float, interval: Interval, n: int, population: str, spec: Specification) -> Gate:
    """Passes when the p95 of the KL on images that should not move is within `kl_p95_limit` nats."""
    limit = spec.kl_p95_limit or 0.0
    state = below(interval.low, interval.high, limit)
    return Gate(
        "ripple",
        "harm",
        state,
        f"p95 of KL {p95:.4g} nats [{interval.low:.4g}, {interval.high:.4g}] on {n} {population} "
        f"(allowed {limit:.4g})",
        estimate=p95,
        low=interval.low,
        high=interval.high,
        margin=limit,
        n=n,
        population=population,
        needs_n=images_for_width(n, p95, interval.low, interval.high, limit)
        if state == "undecided"
        else None,
    )


def calibration_gate(ece: CalibrationScore | None, n: int, spec: Specification) -> Gate:
    """Passes when the ECE has not grown by more than `ece_margin`; undecided below `ece_min_images`."""
    margin = spec.ece_margin or 0.0
    if ece is None:
        return Gate(
            "calibration",
            "harm",
            "undecided",
            f"{n} labelled images: the ECE is noise below {spec.ece_min_images}",
            margin=margin,
            n=n,
            population="labelled images",
            needs_n=spec.ece_min_images,
        )
    low, high = ece.interval.low, ece.interval.high
    state = below(low, high, margin)
    return Gate(
        "calibration",
        "harm",
        state,
        f"ECE {ece.before:.4f} -> {ece.after:.4f}: grew by {ece.difference:+.4f} [{low:+.4f}, {high:+.4f}] "
        f"(allowed {margin:.4g})",
        estimate=ece.difference,
        low=low,
        high=high,
        margin=margin,
        n=n,
        population="labelled images",
        needs_n=images_for_width(n, ece.difference, low, high, margin) if state == "undecided" else None,
    )


def _points(share: float) -> str:
    return f"{100 * share:.2f}"


def _scaled(needed: int | None, n: int, n_effective: float) -> int | None:
    return None if needed is None else math.ceil(needed * n / n_effective)


def _more(needed: int | None, c: PairedComparison) -> int | None:
    # The formula is of power, not of this interval: an undecided gate always needs more than it has.
    scaled = _scaled(needed, c.n, c.n_effective)
    return None if scaled is None else max(c.n + 1, scaled)


def _for_loss(
    outcome: Int[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None,
    margin: float,
    alpha: float,
    alpha_fail: float,
) -> int | None:
    net = net_per_image(outcome)
    n = len(net)
    needed = images_for_loss(float((net < 0).mean()), float((net > 0).mean()), margin, alpha, alpha_fail)
    scaled = _scaled(needed, n, effective_size(net.astype(np.float64), clusters))
    return None if scaled is None else max(n + 1, scaled)
