"""What a data set can show before it is looked at, and how many images a decision still needs."""

import math
from collections.abc import Callable

import numpy as np
from scipy import special

from fulcrum.domain.errors import InvalidSettings
from fulcrum.science.validation.arrays import check_share
from fulcrum.science.validation.intervals import (
    agresti_min_many,
    clopper_pearson_lower,
    clopper_pearson_upper,
    normal_quantile,
)

MOST_IMAGES = 10**8


def minimum_detectable_effect(
    n: int, discordant_share: float = 0.05, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Smallest net gain (a share) that McNemar's test finds with this power; print it before the run.

    Solves `n = (z_{1-alpha/2} sqrt(psi) + z_power sqrt(psi - d^2))^2 / d^2` for d (Connor 1987), psi the
    discordant share. None: not even a correction whose flips are all fixes would be found (d would exceed
    psi).
    """
    psi = check_share("discordant_share", discordant_share)
    za, zb = _quantiles(alpha, power)
    if n < 1:
        raise InvalidSettings(f"n={n}: at least one image is needed")
    # (d sqrt(n) - za sqrt(psi))^2 = zb^2 (psi - d^2) is quadratic in d; the larger root has the positive left
    # side.
    inner = n * za**2 - (n + zb**2) * (za**2 - zb**2)
    if inner < 0:
        return None
    d = math.sqrt(psi) * (math.sqrt(n) * za + math.sqrt(inner)) / (n + zb**2)
    return d if d <= psi else None


def images_for_effect(
    effect: float, discordant_share: float, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Images with which McNemar's test finds a net gain of `effect`.

    None for 0, which no number of images finds. The inverse of `minimum_detectable_effect`. Raises
    InvalidSettings when `effect` exceeds the discordant share.
    """
    za, zb = _quantiles(alpha, power)
    d, psi = abs(effect), discordant_share
    if d == 0:
        return None
    if not 0 < d <= psi <= 1:
        raise InvalidSettings(f"an effect of {effect} needs a discordant share of at least {d}, got {psi}")
    return math.ceil((za * math.sqrt(psi) + zb * math.sqrt(psi - d * d)) ** 2 / (d * d))


def images_for_clean_bound(margin: float, alpha: float = 0.05) -> int:
    """Images which, with none broken, bound the NFR by `margin`: `1 - alpha^(1/n) <= margin`."""
    check_share("margin", margin)
    return math.ceil(math.log(check_share("alpha", alpha)) / math.log1p(-margin) - 1e-9)


def images_for_rate(rate: float, margin: float, alpha: float = 0.05) -> int | None:
    """Images with which Clopper-Pearson decides on which side of `margin` this observed rate lies.

    None if it is on it.
    """
    check_share("margin", margin)
    if rate == margin:
        return None

    def decided(n: int) -> bool:
        count = rate * n
        if rate < margin:
            return clopper_pearson_upper(count, n, alpha) <= margin
        return clopper_pearson_lower(count, n, alpha) > margin

    return _fewest(decided)


def images_for_loss(
    broken: float, fixed: float, margin: float, alpha: float = 0.05, alpha_fail: float | None = None
) -> int | None:
    """Images with which Agresti-Min decides whether a loss of accuracy is within `margin`.

    `broken` and `fixed` are the shares seen. One-sided: at `alpha` that it is, at `alpha_fail` that it is not.
    None if the loss seen is the margin.
    """
    loss = broken - fixed
    if loss == margin:
        return None
    level = 1 - 2 * (alpha if loss < margin or alpha_fail is None else alpha_fail)

    def decided(n: int) -> bool:
        size = np.array([float(n)])
        low, high = agresti_min_many(broken * size, fixed * size, size, level)
        return bool(-low[0] <= margin if loss < margin else -high[0] > margin)

    return _fewest(decided)


def _fewest(decided: Callable[[int], bool]) -> int | None:
    low, high = 0, 1
    while not decided(high):
        low, high = high, high * 2
        if high > MOST_IMAGES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def images_for_width(n: int, estimate: float, low: float, high: float, margin: float) -> int | None:
    """Images at which an interval, shrinking with the square root of n, leaves `margin`.

    None if the estimate is on it.
    """
    distance = abs(estimate - margin)
    side = high - estimate if estimate < margin else estimate - low
    if distance == 0 or side <= 0:
        return None
    needed = n * (side / distance) ** 2
    return None if needed > MOST_IMAGES else max(n + 1, math.ceil(needed))


def worst_of_worthless(n: int, n_looks: int, discordant_share: float = 0.05) -> float:
    """Expected best net gain among `n_looks` worthless corrections tried on the same n images.

    Adaptive reuse, in normal approximation: the standard error `sqrt(psi / n)` times the expected maximum of
    n_looks standard normals (Blom's approximation of the order statistic).
    """
    if n < 1 or n_looks < 1:
        raise InvalidSettings(f"n={n} and n_looks={n_looks} must be at least 1")
    expected_maximum = float(special.ndtri((n_looks - 0.375) / (n_looks + 0.25)))
    return max(0.0, expected_maximum) * math.sqrt(check_share("discordant_share", discordant_share) / n)


def _quantiles(alpha: float, power: float) -> tuple[float, float]:
    if not 0.5 <= power < 1:
        raise InvalidSettings(f"power={power} must lie in [0.5, 1)")
    return normal_quantile(1 - check_share("alpha", alpha) / 2), normal_quantile(power)
