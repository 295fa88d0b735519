import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.multiplicity import adjust
from fulcrum.science.validation.ripple import (
    class_moves,
    concept_moves,
    embedding_drift,
    kl_divergence,
    moves,
    moves_from_counts,
    spread,
)


@given(st.integers(0, 20), st.sampled_from([0.5, 1.0, 3.0]))
@settings(max_examples=30, deadline=None)
def test_kl_is_that_of_scipy_in_nats_at_the_temperature(seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    base, corrected = rng.normal(scale=4, size=(2, 9, 5))
    p, q = special.softmax(base / temperature, axis=1), special.softmax(corrected / temperature, axis=1)
    assert kl_divergence(base, corrected, temperature) == pytest.approx(
        stats.entropy(p, q, axis=1), abs=1e-10
    )


def test_kl_of_unmoved_logits_is_exactly_nothing_and_never_negative() -> None:
    logits = np.random.default_rng(0).normal(scale=30, size=(500, 7))
    assert (kl_divergence(logits, logits) == 0).all()
    assert (kl_divergence(logits, logits + 1e-9) >= 0).all()
    # far logits stay finite: log-softmax, not log of softmax
    assert np.isfinite(kl_divergence(logits * 100, -logits * 100)).all()


def test_kl_does_not_see_a_shift_of_all_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3))
    assert kl_divergence(logits, logits + 7.0) == pytest.approx(np.zeros(5), abs=1e-12)


def test_chunks_of_rows_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    base, corrected = np.random.default_rng(0).normal(size=(2, 10, 3))
    whole = kl_divergence(base, corrected)
    monkeypatch.setattr("fulcrum.science.validation.ripple.ROWS_PER_CHUNK", 3)
    assert (kl_divergence(base, corrected) == whole).all()


def test_drift_is_one_minus_cosine_also_when_tiny() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 20, 8))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert embedding_drift(a, b) == pytest.approx(1 - cosine)
    assert embedding_drift(a, 3 * a) == pytest.approx(np.zeros(20), abs=1e-15)
    with pytest.raises(InvalidInput, match="not of length 0"):
        embedding_drift(np.zeros((1, 4)), np.ones((1, 4)))


def test_the_spread_is_mean_p95_and_maximum() -> None:
    s = spread(np.arange(1.0, 101.0))
    assert (s.n, s.mean, s.p95, s.max) == (100, 50.5, 95.0, 100.0)
    with pytest.raises(InvalidInput):
        spread(np.array([]))


def test_classes_gain_and_lose_answers() -> None:
    base = np.array([0] * 12 + [1] * 5 + [2] * 3)
    corrected = np.array([1] * 10 + [0] * 2 + [1] * 5 + [2] * 3)
    first, second = class_moves(base, corrected, ("cat", "dog", "cup"))
    assert (first.class_name, first.n_left, first.n_entered, first.n_before, first.n_after) == (
        "cat",
        10,
        0,
        12,
        2,
    )
    assert (second.class_name, second.n_left, second.n_entered) == ("dog", 0, 10)
    assert first.p == pytest.approx(stats.binomtest(0, 10).pvalue)
    q = adjust(np.array([first.p, second.p, 1.0]))
    assert (first.q, second.q) == pytest.approx((q[0], q[1]))


def test_a_latent_that_follows_is_told_from_those_that_flicker() -> None:
    rng = np.random.default_rng(0)
    before = rng.random((200, 30))
    after = before + rng.normal(scale=0.01, size=before.shape)
    after[:, 4] += 0.02
    found = moves([f"latent {j}" for j in range(30)], before, after)
    assert [m.name for m in found if m.q < 0.05] == ["latent 4"]
    assert found[4].mean_change == pytest.approx(0.02, abs=0.003)
    assert found[4].p == pytest.approx(stats.binomtest(found[4].n_up, 200).pvalue)


def test_rounding_is_a_tie() -> None:
    values = np.random.default_rng(0).random((50, 2))
    noisy = values + 1e-8
    assert [(m.n_up, m.n_down, m.p) for m in moves(["a", "b"], values, noisy)] == [(0, 0, 1.0)] * 2


def test_counts_give_what_the_dense_values_give() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.random((2, 40, 6))
    change = after - before
    dense = moves(list("abcdef"), before, after)
    counted = moves_from_counts(list("abcdef"), (change > 0).sum(0), (change < 0).sum(0), change.mean(0))
    assert dense == counted
    with pytest.raises(InvalidInput, match="n_up has 6 values"):
        moves_from_counts(list("abc"), (change > 0).sum(0), (change < 0).sum(0), change.mean(0))


def test_a_concept_bank_names_what_the_images_moved_towards() -> None:
    rng = np.random.default_rng(0)
    bank = np.eye(3, 6)
    base = rng.normal(size=(80, 6))
    found = concept_moves(["text", "grass", "red"], base, base - 0.5 * bank[0], bank)
    assert found[0].n_down > 70
    assert found[0].q < 1e-6
    assert found[0].mean_change < 0
