"""A linkage (as scipy writes it) as lines to draw."""

from collections.abc import Sequence

import pandas as pd


def links_of(
    linkage: Sequence[Sequence[float]], order: Sequence[int], names: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Four points for each link (`link, step, x, y`), and the leaves with their places (`concept, x`).

    `order`: leaves from left to right. Each row of `linkage`: the two joined, their distance, leaves below.
    """
    x = {leaf: float(place) for place, leaf in enumerate(order)}
    height = dict.fromkeys(x, 0.0)
    points = []
    for i, row in enumerate(linkage):
        a, b, distance = int(row[0]), int(row[1]), float(row[2])
        node = len(order) + i
        corners = ((x[a], height[a]), (x[a], distance), (x[b], distance), (x[b], height[b]))
        points += [{"link": i, "step": step, "x": px, "y": py} for step, (px, py) in enumerate(corners)]
        x[node], height[node] = (x[a] + x[b]) / 2, distance
    leaves = pd.DataFrame([{"concept": names[leaf], "x": float(place)} for place, leaf in enumerate(order)])
    return pd.DataFrame(points), leaves
