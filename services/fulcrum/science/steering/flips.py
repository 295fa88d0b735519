"""Where along a dose an answer flips: by grid first, then inside the first bracket.

The curve may be non-monotone, so bisection over the whole range could return any of several flips.
"""

from collections.abc import Callable, Sequence

import numpy as np

# Says for each gain whether the answer has flipped; all gains of a call go through the model together.
Flips = Callable[[Sequence[float]], Sequence[bool]]


def first_bracket(
    gains: Sequence[float], flipped: Sequence[bool], start: float = 1.0
) -> tuple[float, float] | None:
    """`(not flipped, flipped)` around the first flip walking away from `start`, where nothing has flipped.

    The nearer one where it flips on both sides (the lower at equal distance); None where it never does.
    """
    brackets = []
    for sign in (-1.0, 1.0):
        last = start
        for gain, flip in sorted(zip(gains, flipped, strict=True), key=lambda pair: abs(pair[0] - start)):
            if (gain - start) * sign <= 0:
                continue
            if flip:
                brackets.append((last, gain))
                break
            last = gain
    return min(brackets, key=lambda bracket: abs(bracket[1] - start)) if brackets else None


def narrow(
    bracket: tuple[float, float], flips: Flips, tolerance: float = 0.01, n_inner: int = 15
) -> tuple[float, float]:
    """The first flip inside the bracket to `tolerance`, as `(not flipped, flipped)`.

    Each round asks for `n_inner` gains at once and goes on in the first piece which flips: a bisection with 4
    halvings a round, since a batch of 15 rows costs little more than one.
    """
    low, high = bracket
    while abs(high - low) > tolerance:
        grid = np.linspace(low, high, n_inner + 2)
        if grid[1] == low:
            break  # nothing lies between them in floating point
        for gain, flip in zip(grid[1:-1], flips([float(g) for g in grid[1:-1]]), strict=True):
            if flip:
                high = float(gain)
                break
            low = float(gain)
    return low, high
