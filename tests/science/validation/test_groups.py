import numpy as np
import pytest

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.bootstrap import PairedBootstrap, on_the_sample
from fulcrum.science.validation.flips import BROKEN, FIXED, STILL_RIGHT, STILL_WRONG, FlipTable
from fulcrum.science.validation.groups import (
    group_table,
    group_values,
    members_of,
    worst_group,
    worst_statistic,
)
from fulcrum.science.validation.intervals import agresti_min, clopper_pearson_upper
from fulcrum.science.validation.mcnemar import mcnemar_exact
from fulcrum.science.validation.multiplicity import adjust
from fulcrum.science.validation.specification import Specification

SPEC = Specification()


def counts(right: int, broken: int, fixed: int, wrong: int) -> np.ndarray:
    return np.repeat([STILL_RIGHT, BROKEN, FIXED, STILL_WRONG], [right, broken, fixed, wrong])


def example() -> tuple[list, np.ndarray]:
    parts = {"big": counts(80, 2, 12, 6), "harmed": counts(30, 9, 0, 1), "tiny": counts(5, 3, 0, 1)}
    column = np.repeat(list(parts), [len(p) for p in parts.values()])
    return members_of({"place": column}), np.concatenate(list(parts.values()))


def test_each_row_is_the_comparison_of_its_images_with_bounds_that_hold_together() -> None:
    groups, outcome = example()
    big, harmed, _ = group_table(groups, outcome, None, SPEC)
    assert (big.n, big.broken, big.fixed, big.net) == (100, 2, 12, pytest.approx(0.1))
    assert (big.accuracy_before, big.accuracy_after) == (0.82, 0.92)
    assert big.p == mcnemar_exact(2, 12)
    q = adjust(np.array([mcnemar_exact(2, 12), mcnemar_exact(9, 0)]))
    assert (big.q, harmed.q) == pytest.approx(tuple(q))
    # Two judged groups share alpha; the tiny one is not in the family.
    alone = agresti_min(FlipTable(80, 2, 12, 6), 0.975)
    assert big.interval is not None
    assert (big.interval.low, big.interval.high) == pytest.approx((alone.low, alone.high))
    assert harmed.nfr_upper == pytest.approx(clopper_pearson_upper(9, 40, 0.025))
    assert (big.verdict, harmed.verdict) == ("better", "worse")


def test_groups_below_twenty_get_numbers_and_no_verdict() -> None:
    groups, outcome = example()
    tiny = group_table(groups, outcome, None, SPEC)[2]
    assert tiny.n == 9
    assert tiny.nfr == pytest.approx(3 / 9)
    assert (tiny.verdict, tiny.q, tiny.interval, tiny.nfr_upper) == (None, None, None, None)
    nineteen, twenty = (
        group_table([(groups[0][0], np.arange(n))], np.full(n, STILL_RIGHT), None, SPEC)[0] for n in (19, 20)
    )
    assert nineteen.verdict is None
    assert twenty.verdict == "no difference shown"


def test_the_worst_group_is_the_judged_one_that_lost_most_and_minima_are_over_all_groups() -> None:
    groups, outcome = example()
    rows = group_table(groups, outcome, None, SPEC)
    statistic = worst_statistic(groups, outcome)
    (draws,) = PairedBootstrap(len(outcome), n_resamples=2000).draws(statistic)
    worst = worst_group(rows, on_the_sample(statistic, len(outcome)), draws, 0.95)
    assert worst.by_net is not None
    assert worst.by_net.group.values == ("harmed",)
    assert (worst.n_groups, worst.n_judged) == (3, 2)
    assert worst.accuracy_before == pytest.approx(0.82)  # big: 82 of 100; tiny had 8 of 9, harmed 39 of 40
    assert worst.accuracy_after == pytest.approx(5 / 9)
    assert worst.difference == pytest.approx(5 / 9 - 0.82)
    assert worst.difference in worst.difference_interval


def test_duplicates_inside_a_group_do_not_make_it_surer() -> None:
    once = counts(80, 0, 6, 14)
    groups = members_of({"all": np.full(1000, "x")})
    copied = np.repeat(once, 10)
    naive = group_table(groups, copied, None, SPEC)[0]
    honest = group_table(groups, copied, np.repeat(np.arange(100), 10), SPEC)[0]
    assert naive.p < 1e-15
    assert honest.p == pytest.approx(mcnemar_exact(0, 6))
    assert honest.interval is not None
    single = agresti_min(FlipTable(80, 0, 6, 14))
    assert honest.interval.high - honest.interval.low == pytest.approx(single.high - single.low, rel=0.02)


def test_blank_and_missing_values_are_no_group() -> None:
    values = group_values("place", [None, "", "sea", 3], 4)
    assert [g.name for g, _ in members_of({"place": values})] == ["place=3", "place=sea"]


def test_a_column_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidInput, match="group column 'place' has 1 values for 2 images"):
        group_values("place", ["sea"], 2)


def test_the_order_of_the_images_does_not_change_the_rows() -> None:
    groups, outcome = example()
    order = np.random.default_rng(0).permutation(len(outcome))
    column = np.repeat(["big", "harmed", "tiny"], [100, 40, 9])[order]
    assert group_table(members_of({"place": column}), outcome[order], None, SPEC) == group_table(
        groups, outcome, None, SPEC
    )
