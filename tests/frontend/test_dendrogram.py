import numpy as np
from scipy.cluster.hierarchy import dendrogram, linkage

from fulcrum_ui.parts.dendrogram import links_of


def test_links_lie_where_scipy_draws_them():
    points = np.random.default_rng(0).normal(size=(9, 3))
    tree = linkage(points, "average")
    drawn = dendrogram(tree, no_plot=True)
    links, leaves = links_of(tree.tolist(), drawn["leaves"], [f"c{i}" for i in range(9)])
    ours = {
        (tuple(np.round(one.x * 10 + 5, 6)), tuple(np.round(one.y, 9))) for _, one in links.groupby("link")
    }
    theirs = set()
    for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        theirs.add((tuple(np.round(x, 6)), tuple(np.round(y, 9))))
    assert {frozenset(zip(x, y, strict=True)) for x, y in ours} == {
        frozenset(zip(x, y, strict=True)) for x, y in theirs
    }
    assert list(leaves.concept) == [f"c{i}" for i in drawn["leaves"]]
