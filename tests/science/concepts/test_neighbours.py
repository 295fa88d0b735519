import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from fulcrum.domain.errors import InvalidInput, LatentOutOfRange
from fulcrum.science.concepts.codes import SparseCodes
from fulcrum.science.concepts.neighbours import StreamingCofiring, cofiring_neighbours, decoder_neighbours

from .codes_of import codes, dense, seeds


def slow_measure(a: np.ndarray, b: np.ndarray, measure: str) -> float:
    n, both = len(a), (a & b).sum()
    if measure == "phi":
        if a.all() or b.all() or not a.any() or not b.any():
            return -np.inf
        return float(np.corrcoef(a, b)[0, 1])
    if measure == "jaccard":
        return float(jaccard_score(a, b)) if (a | b).any() else -np.inf
    return float(np.log((both / n) / (a.mean() * b.mean()))) if both else -np.inf


@settings(max_examples=25, deadline=None)
@given(
    seeds, st.integers(1, 30), st.sampled_from(["phi", "jaccard", "pmi"]), st.sampled_from([0.2, 0.6, 1.0])
)
def test_measures_equal_their_definitions_on_the_firing_table(seed, n_images, measure, density):
    fires = dense(seed, n_images, 6, density) > 0
    latents = np.array([4, 0, 2])
    counts = StreamingCofiring(6, latents)
    for half in np.array_split(np.arange(n_images), 2):
        part = StreamingCofiring(6, latents)
        part.update(SparseCodes.from_dense(fires[half].astype(float)))
        counts.merge(part)
    values = counts.measure(measure)
    for i, j in enumerate(latents):
        for k in range(6):
            assert values[i, k] == pytest.approx(slow_measure(fires[:, j], fires[:, k], measure), abs=1e-12)


def test_neighbours_are_sorted_exclude_the_latent_itself_and_break_ties_by_number():
    fires = np.zeros((10, 5))
    fires[:6, 0] = 1
    fires[:6, [2, 4]] = 1  # two perfect neighbours
    fires[:3, 1] = 1
    fires[9, 3] = 1  # never with 0
    (found,) = cofiring_neighbours(SparseCodes.from_dense(fires), np.array([0]), "jaccard")
    assert found.latent == 0
    assert found.others.tolist() == [2, 4, 1]
    assert found.scores.tolist() == [1.0, 1.0, 0.5]
    assert found.n_joint.tolist() == [6, 6, 3]


def test_a_pair_that_met_once_by_chance_is_not_the_best_neighbour_by_pmi():
    fires = np.zeros((1000, 3))
    fires[0, [0, 1]] = 1  # both rare: pmi log(1000) from one image
    fires[1:20, 0] = 1
    fires[1:18, 2] = 1
    sparse = SparseCodes.from_dense(fires)
    assert cofiring_neighbours(sparse, np.array([0]), "pmi")[0].others.tolist() == [2]
    assert cofiring_neighbours(sparse, np.array([0]), "pmi", n_joint_min=1)[0].others.tolist() == [1, 2]


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(1, 8), st.integers(1, 4))
def test_chunks_change_nothing(seed, chunk, k):
    sparse = codes(seed, 40, 8, density=0.4)
    latents = np.arange(8)
    for a, b in zip(
        cofiring_neighbours(sparse, latents, k=k, chunk=chunk),
        cofiring_neighbours(sparse, latents, k=k, chunk=100),
        strict=True,
    ):
        assert a.others.tolist() == b.others.tolist()
        assert a.scores.tolist() == b.scores.tolist()
    W = torch.from_numpy(np.random.default_rng(seed).normal(size=(8, 3)))
    for a, b in zip(
        decoder_neighbours(W, latents, k, chunk), decoder_neighbours(W, latents, k, 100), strict=True
    ):
        assert a.others.tolist() == b.others.tolist()
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 9), st.integers(1, 12))
def test_decoder_neighbours_are_the_largest_cosines_whatever_the_norms(seed, d_sae, k):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(d_sae, 4))
    scaled = W * np.exp(rng.normal(size=(d_sae, 1)))
    for found in decoder_neighbours(torch.from_numpy(scaled), np.arange(d_sae), k):
        j = found.latent
        cosines = {i: W[i] @ W[j] / np.sqrt((W[i] @ W[i]) * (W[j] @ W[j])) for i in range(d_sae) if i != j}
        best = sorted(cosines, key=lambda i: -cosines[i])[:k]
        assert found.others.tolist() == best
        np.testing.assert_allclose(found.scores, [cosines[i] for i in best], atol=1e-6)


def test_a_zero_decoder_row_is_nobodys_neighbour_and_has_none():
    W = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    (found,) = decoder_neighbours(W, np.array([0]))
    assert found.others.tolist() == [2, 3]
    assert found.scores.tolist() == [1.0, -1.0]
    with pytest.raises(InvalidInput, match="latent 1 is zero"):
        decoder_neighbours(W, np.array([0, 1]))


def test_a_latent_that_never_or_always_fires_has_no_phi_neighbours():
    fires = np.zeros((6, 4))
    fires[:, 0] = 1
    fires[:3, [1, 3]] = 1
    always, never = cofiring_neighbours(SparseCodes.from_dense(fires), np.array([0, 2]), "phi")
    assert len(always.others) == 0
    assert len(never.others) == 0


def test_senseless_requests_are_refused():
    sparse = codes(0, 5, 4)
    with pytest.raises(LatentOutOfRange):
        cofiring_neighbours(sparse, np.array([4]))
    with pytest.raises(LatentOutOfRange):
        decoder_neighbours(torch.ones(4, 2), np.array([-1]))
    with pytest.raises(InvalidInput):
        cofiring_neighbours(sparse, np.array([1, 1]))
    with pytest.raises(InvalidInput, match="k=0"):
        cofiring_neighbours(sparse, np.array([1]), k=0)
    with pytest.raises(InvalidInput, match="d_sae"):
        StreamingCofiring(5, np.array([1])).update(sparse)
    with pytest.raises(InvalidInput, match="shards"):
        StreamingCofiring(5, np.array([1])).merge(StreamingCofiring(5, np.array([2])))


@pytest.mark.usefixtures("shape_checks_off")
def test_an_unknown_measure_is_named():
    with pytest.raises(InvalidInput, match="'cosine'"):
        cofiring_neighbours(codes(0, 5, 4), np.array([1]), measure="cosine")
