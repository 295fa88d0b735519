import numpy as np
import pytest
from scipy import stats

from fulcrum.domain.errors import InvalidInput, InvalidSettings
from fulcrum.science.validation.flips import STILL_RIGHT
from fulcrum.science.validation.groups import Group
from fulcrum.science.validation.slices import bin_covariate, find_slices, slice_table, slices_of
from fulcrum.science.validation.specification import Specification

N = 4000


def columns(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "light": rng.choice(["day", "night"], N),
        "place": rng.choice(["sea", "street", "home", ""], N),
        "size": bin_covariate(rng.normal(size=N), 4),
    }


def test_slices_are_all_values_and_all_products_of_two_columns() -> None:
    data = columns()
    found = dict(slices_of(data))
    # 2 + 3 + 4 values; 2*3 + 2*4 + 3*4 products; blank is no value
    assert len(found) == 9 + 26
    for group, images in found.items():
        mask = np.ones(N, dtype=bool)
        for column, value in zip(group.columns, group.values, strict=True):
            mask &= data[column] == value
        assert images.tolist() == np.flatnonzero(mask).tolist()
    assert len(slices_of(data, order=1)) == 9


def test_a_product_that_repeats_a_factor_is_left_out() -> None:
    same = np.array(["a", "a", "b", "b"])
    assert {g.name for g, _ in slices_of({"one": same, "two": same})} == {"one=a", "one=b", "two=a", "two=b"}


def test_the_table_has_every_slice_of_twenty_images() -> None:
    data = columns()
    data["rare"] = np.where(np.arange(N) < 19, "yes", "no")
    rows = slice_table(data, np.full(N, STILL_RIGHT), None, Specification())
    assert all(r.n >= 20 and r.q == 1.0 and r.interval is not None for r in rows)
    assert "rare=yes" not in {r.group.name for r in rows}
    assert {r.mde for r in rows if r.n < 100} <= {None} | {r.mde for r in rows}


def test_a_planted_slice_of_broken_images_is_found_first() -> None:
    data = columns()
    rng = np.random.default_rng(1)
    planted = (data["light"] == "night") & (data["place"] == "sea")
    broken = rng.random(N) < np.where(planted, 0.12, 0.01)
    best = find_slices(data, broken)[0]
    assert best.group == Group(("light", "place"), ("night", "sea"))
    assert best.q < 1e-6
    assert best.rate > 5 * best.rate_outside


def test_the_p_of_a_slice_is_fishers() -> None:
    data = columns()
    broken = np.random.default_rng(2).random(N) < 0.03
    found = find_slices(data, broken)
    for one in found[:5] + found[-5:]:
        inside, outside = one.n_events, int(broken.sum()) - one.n_events
        exact = stats.fisher_exact(
            [[inside, one.n - inside], [outside, N - one.n - outside]], alternative="greater"
        ).pvalue
        assert one.p == pytest.approx(exact, rel=1e-6)


def test_a_search_without_a_pattern_finds_nothing_more_often_than_it_says() -> None:
    data = columns()
    alarms = 0
    for seed in range(100):
        broken = np.random.default_rng(100 + seed).random(N) < 0.03
        alarms += min(f.q for f in find_slices(data, broken)) <= 0.05
    assert alarms <= 11  # 5 expected; P(> 11) < 0.01


def test_slices_given_by_hand_join_the_search() -> None:
    brushed = Group(("brush",), ("1",))
    broken = np.arange(N) < 40
    found = find_slices(columns(), broken, extra=[(brushed, np.arange(60))])
    assert found[0].group == brushed
    assert found[0].n_events == 40


def test_quantile_bins_have_equal_shares_and_leave_unknown_values_out() -> None:
    values = np.append(np.random.default_rng(0).random(400), np.nan)
    binned = bin_covariate(values, 4)
    names, sizes = np.unique(binned[:-1], return_counts=True)
    assert len(names) == 4
    assert set(sizes.tolist()) <= {99, 100, 101}
    assert binned[-1] == ""
    assert np.unique(bin_covariate(np.ones(5))).tolist() == ["1"]


def test_impossible_searches_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="order=3"):
        slices_of({}, order=3)
    with pytest.raises(InvalidSettings, match="n_bins=1"):
        bin_covariate(np.ones(3), 1)
    with pytest.raises(InvalidInput, match="has 2 values for 3 images"):
        find_slices({"a": np.array(["x", "y"])}, np.zeros(3, dtype=bool))
    assert find_slices({}, np.zeros(3, dtype=bool)) == ()
