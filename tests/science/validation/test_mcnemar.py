import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.mcnemar import mcnemar_exact, sign_flip_exact, sign_test_many

counts = st.integers(0, 80)


@pytest.mark.parametrize(
    ("broken", "fixed", "p"),
    [(0, 5, 0.0625), (0, 6, 0.0313), (2, 12, 0.0129), (10, 30, 0.0022), (40, 60, 0.0569)],
)
def test_p_values_are_the_worked_figures(broken: int, fixed: int, p: float) -> None:
    assert mcnemar_exact(broken, fixed) == pytest.approx(p, abs=5.1e-5)


@given(counts, counts)
@settings(max_examples=60, deadline=None)
def test_p_equals_statsmodels_and_scipy(broken: int, fixed: int) -> None:
    p = mcnemar_exact(broken, fixed)
    assert 0 < p <= 1
    assert p == mcnemar_exact(fixed, broken)
    assert p == pytest.approx(mcnemar([[50, broken], [fixed, 9]], exact=True).pvalue, rel=1e-9)
    if broken + fixed:
        # scipy doubles by likelihood; for p = 1/2 the binomial is symmetric and the two are one.
        assert p == pytest.approx(stats.binomtest(fixed, broken + fixed).pvalue, rel=1e-9)


def test_many_flips_do_not_overflow() -> None:
    assert mcnemar_exact(25_000, 25_000) == 1.0
    assert 0 <= mcnemar_exact(0, 50_000) < 1e-300


def test_no_flip_is_no_evidence() -> None:
    assert mcnemar_exact(0, 0) == 1.0


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot be negative"):
        mcnemar_exact(-1, 3)


@given(counts, counts)
@settings(max_examples=40, deadline=None)
def test_clusters_of_one_image_give_mcnemar(broken: int, fixed: int) -> None:
    assert sign_flip_exact([-1] * broken + [1] * fixed + [0] * 3) == pytest.approx(
        mcnemar_exact(broken, fixed)
    )


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
@settings(max_examples=50, deadline=None)
def test_cluster_p_equals_enumerating_all_signs(net: list[int]) -> None:
    sums = [
        abs(sum(s * abs(v) for s, v in zip(signs, net, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(net))
    ]
    assert sign_flip_exact(net) == pytest.approx(np.mean([s >= abs(sum(net)) for s in sums]), abs=1e-12)


def test_copies_of_an_image_are_no_further_evidence() -> None:
    # Six fixed images, each imported ten times: 60 fixes look overwhelming, six clusters are not.
    assert mcnemar_exact(0, 60) < 1e-15
    assert sign_flip_exact([10] * 6) == pytest.approx(mcnemar_exact(0, 6))


def test_the_sign_test_is_that_of_scipy() -> None:
    up, down = np.array([8, 0, 3]), np.array([1, 0, 3])
    assert sign_test_many(up, down) == pytest.approx([stats.binomtest(8, 9).pvalue, 1.0, 1.0])
