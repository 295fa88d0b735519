import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from fulcrum.domain.errors import ComputationFailed, InvalidInput
from fulcrum.domain.experts import Expertise
from fulcrum.science.experts import ap as engine
from fulcrum.science.experts.ap import average_precision, average_precisions, check_labels, expertise
from fulcrum.science.experts.sparse_ap import SparseResponses, sparse_expertise


def slow_ap(responses: np.ndarray, labels: np.ndarray) -> float:
    """From the definition: precision at every threshold that occurs, weighted by the recall it adds."""
    total = 0.0
    for threshold in np.unique(responses):
        selected = responses >= threshold
        added = ((responses == threshold) & labels).sum() / labels.sum()
        total += added * (labels & selected).sum() / selected.sum()
    return total


def slow_auroc(responses: np.ndarray, labels: np.ndarray) -> float:
    on, off = responses[labels][:, None].astype(np.float64), responses[~labels][None]
    return float((on > off).mean() + 0.5 * (on == off).mean())


def sparse(responses: np.ndarray) -> SparseResponses:
    units, examples = np.nonzero(responses)
    return SparseResponses.create(units, examples, responses[units, examples], *responses.shape)


def as_labels(labels: np.ndarray) -> np.ndarray:
    return labels[None].astype(np.int8)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, n_units = draw(st.integers(2, 40)), draw(st.integers(1, 6))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    responses = (rng.integers(-levels, levels, (n_units, n)) / 3).astype(np.float32)
    responses[rng.random(responses.shape) < draw(st.sampled_from([0.0, 0.5, 0.95]))] = 0
    labels = rng.permutation(np.arange(n) < draw(st.integers(1, n - 1)))
    return responses, labels


@given(problems())
@settings(max_examples=150, deadline=None)
def test_dense_and_sparse_say_what_the_definitions_say(problem):
    responses, labels = problem
    for found in (
        expertise(responses, as_labels(labels))[0],
        sparse_expertise(sparse(responses), as_labels(labels))[0],
    ):
        assert found.ap == pytest.approx([slow_ap(r, labels) for r in responses], abs=1e-12)
        assert found.auroc == pytest.approx([slow_auroc(r, labels) for r in responses], abs=1e-12)
        on = responses[:, labels].astype(np.float64)
        assert found.on_p50 == pytest.approx(np.quantile(on, 0.5, axis=1), abs=1e-9)
        assert found.on_p90 == pytest.approx(np.quantile(on, 0.9, axis=1), abs=1e-9)
        assert found.off_mean == pytest.approx(responses[:, ~labels].mean(axis=1, dtype=np.float64), abs=1e-9)
        off = responses[:, ~labels].astype(np.float64)
        assert found.on_mean == pytest.approx(on.mean(axis=1), abs=1e-9)
        assert found.on_sd == pytest.approx(on.std(axis=1), abs=1e-6)
        assert found.off_sd == pytest.approx(off.std(axis=1), abs=1e-6)
        assert (found.n_pos, found.n_neg) == (labels.sum(), (~labels).sum())


@given(problems(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_order_of_examples_and_the_units_beside_it_change_no_bit(problem, seed):
    responses, labels = problem
    order = np.random.default_rng(seed).permutation(len(labels))
    ap = average_precision(responses, labels)
    assert (average_precision(responses[:, order], labels[order]) == ap).all()
    alone = [average_precision(responses[u : u + 1], labels)[0] for u in range(len(responses))]
    assert (np.array(alone) == ap).all()


@given(problems())
@settings(max_examples=60, deadline=None)
def test_unused_examples_are_as_good_as_absent(problem):
    responses, labels = problem
    padded = np.concatenate([responses, np.full_like(responses, 7), -responses], axis=1)
    marked = np.concatenate([labels, np.full(2 * len(labels), -1)]).astype(np.int8)[None]
    expected = expertise(responses, as_labels(labels))[0]
    for found in (expertise(padded, marked)[0], sparse_expertise(sparse(padded), marked)[0]):
        assert found.ap == pytest.approx(expected.ap, abs=1e-15)
        assert found.auroc == pytest.approx(expected.auroc, abs=1e-15)


@pytest.mark.parametrize("kind", ["real", "tied", "constant", "relu", "wide"])
def test_it_equals_sklearn(kind):
    rng = np.random.default_rng(5)
    responses = rng.standard_normal((40, 700))
    responses = {
        "real": responses,
        "tied": np.round(responses),
        "constant": np.full_like(responses, 0.3),
        "relu": np.maximum(responses - 1.5, 0),
        "wide": responses * 10.0 ** rng.integers(-30, 30, responses.shape),
    }[kind].astype(np.float32)
    labels = rng.random(700) < 0.2
    found = expertise(responses, as_labels(labels))[0]
    ap = [average_precision_score(labels, r) for r in responses]
    assert np.abs(found.ap - ap).max() <= 1e-12
    assert np.abs(found.auroc - [roc_auc_score(labels, r) for r in responses]).max() <= 1e-12
    assert np.abs(sparse_expertise(sparse(responses), as_labels(labels))[0].ap - ap).max() <= 1e-12


def test_concepts_that_share_negatives_or_examples_are_as_each_by_itself():
    rng = np.random.default_rng(1)
    responses = np.round(rng.standard_normal((9, 120)), 1).astype(np.float32)
    pool = np.arange(120) % 4
    labels = np.stack(
        [
            np.where(pool == 0, 1, np.where(pool == 3, 0, -1)),  # 0 and 1 share their negatives
            np.where(pool == 1, 1, np.where(pool == 3, 0, -1)),
            np.where(pool == 0, 1, 0),  # 2, 3 and 4 all examples
            np.where(pool == 1, 1, 0),
            np.where(pool == 2, 1, 0),
        ]
    ).astype(np.int8)
    together = expertise(responses, labels)
    for found, row, ap in zip(together, labels, average_precisions(responses, labels), strict=True):
        used = row != -1
        want = [average_precision_score(row[used] == 1, r[used]) for r in responses]
        assert np.abs(found.ap - want).max() <= 1e-12
        assert (ap == found.ap).all()
        rocs = [roc_auc_score(row[used] == 1, r[used]) for r in responses]
        assert np.abs(found.auroc - rocs).max() <= 1e-12
        assert found.off_mean == pytest.approx(
            responses[:, row == 0].mean(axis=1, dtype=np.float64), abs=1e-9
        )
        assert found.off_sd == pytest.approx(responses[:, row == 0].std(axis=1, dtype=np.float64), abs=1e-9)
        assert found.on_sd == pytest.approx(responses[:, row == 1].std(axis=1, dtype=np.float64), abs=1e-9)


def test_pieces_of_units_change_no_bit(monkeypatch):
    responses = np.random.default_rng(2).standard_normal((33, 50)).astype(np.float32)
    labels = np.arange(50) < 20
    whole = average_precision(responses, labels)
    monkeypatch.setattr(engine, "_VALUES_PER_PIECE", 100)
    assert (average_precision(responses, labels) == whole).all()


def test_a_constant_unit_has_the_base_rate_wherever_the_positives_stand():
    labels = np.arange(10) == 0
    constant = np.ones((1, 10), dtype=np.float32)
    for shifted in (labels, labels[::-1]):
        found = expertise(constant, as_labels(shifted))[0]
        assert found.ap[0] == found.base_rate == 0.1
        assert found.auroc[0] == 0.5


def test_a_unit_that_is_constant_without_the_concept_has_no_spread_there_though_its_sums_are_differences():
    rng = np.random.default_rng(4)
    pool = np.arange(999) % 3
    labels = np.stack([pool == 0, pool == 1]).astype(np.int8)  # each is the other's negative
    responses = np.full((1, 999), 0.1, dtype=np.float32)
    responses[0, pool == 0] = rng.standard_normal((pool == 0).sum())
    first, second = expertise(responses, labels)
    assert first.off_sd[0] == second.on_sd[0] == 0.0
    assert first.on_sd[0] == pytest.approx(responses[0, pool == 0].std(), rel=1e-6)


def test_the_responses_of_the_hand_made_oracle_have_its_mean_ap():
    # Two layers of ten units, drawn from one state: EXPERTS.md 3.
    state = np.random.RandomState(1234)
    labels = np.array([1, 1, 0, 1, 0, 0], dtype=bool)
    responses = np.concatenate([state.rand(10, 6), state.rand(10, 6)])
    ap = average_precision(responses, labels)
    assert ap == pytest.approx([slow_ap(r, labels) for r in responses], abs=1e-12)
    assert ap.mean() == pytest.approx(0.7222222, abs=5e-8)


def test_minus_zero_is_zero():
    labels = np.array([True, False, True, False])
    responses = np.array([[-0.0, 0.0, 1.0, -1.0]], dtype=np.float32)
    assert average_precision(responses, labels)[0] == pytest.approx(slow_ap(responses[0], labels))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_infinity_and_a_concept_with_one_class_are_refused_with_words(bad):
    responses = np.ones((3, 4), dtype=np.float32)
    responses[1, 2] = bad
    labels = np.array([True, False, True, False])
    with pytest.raises(ComputationFailed, match="the first is unit 1"):
        average_precision(responses, labels)
    with pytest.raises(ComputationFailed, match="nan"):
        sparse(responses)
    with pytest.raises(InvalidInput, match="4 positive and 0 negative"):
        average_precision(np.ones((1, 4), dtype=np.float32), np.ones(4, dtype=bool))
    with pytest.raises(InvalidInput, match="labels must be"):
        check_labels(np.ones((1, 5), dtype=np.int8), 4)
    with pytest.raises(InvalidInput, match="twice"):
        SparseResponses.create(np.zeros(2, int), np.ones(2, int), np.ones(2, np.float32), 1, 2)


def test_layers_with_other_base_rates_are_not_joined():
    def some(n_pos: int, n_neg: int) -> Expertise:
        return Expertise(*(np.zeros(2) for _ in range(8)), n_pos=n_pos, n_neg=n_neg)

    assert Expertise.joined([some(4, 10), some(400, 1000)]).n_units == 4
    with pytest.raises(InvalidInput, match="across base rates"):
        Expertise.joined([some(400, 1000), some(80, 2500)])


def test_rows_of_sparse_responses_are_those_of_the_dense_ones() -> None:
    dense = np.random.default_rng(3).normal(size=(7, 20)).astype(np.float32)
    dense[np.abs(dense) < 0.8] = 0
    dense[4] = 0
    units, examples = np.nonzero(dense)
    sparse = SparseResponses.create(units, examples, dense[units, examples], 7, 20)
    assert np.array_equal(sparse.rows(np.arange(7)), dense)
    assert np.array_equal(sparse.rows(np.array([5, 4, 0])), dense[[5, 4, 0]])
