import numpy as np
import pytest

from fulcrum.datasets.description import NONE, ConceptDescription
from fulcrum.domain.errors import CorruptIndex, InvalidInput, LatentOutOfRange
from fulcrum.engine.describing import built_in_vocabulary, describe_latents

WORDS = ("a dog", "a cat", "a car", "a tree", "text", "red", "a house")


@pytest.fixture(scope="module")
def described(steerable, small_world, index, tmp_path_factory):
    path = tmp_path_factory.mktemp("description") / "d.arrays"
    describe_latents(steerable, small_world, index, path, WORDS, n_top=6)
    return ConceptDescription.open(path)


def test_every_latent_that_fires_is_described_and_no_other(described, index):
    assert described["latents"].tolist() == np.flatnonzero(index.statistics.n_images_active).tolist()
    silent = int(np.flatnonzero(index.statistics.n_images_active == 0)[0])
    assert described.row(silent) is None
    with pytest.raises(LatentOutOfRange):
        described.row(described.found_in.d_sae)


@pytest.mark.parametrize("by", ["max", "mean"])
def test_top_images_are_those_that_the_index_finds_for_one_latent(described, index, by):
    for row in range(0, len(described), 37):
        images, values = index.top_images(int(described["latents"][row]), 6, by=by)
        found = described[f"top_{by}_images"][row]
        assert found[found != NONE].tolist() == images.tolist()
        assert described[f"top_{by}_values"][row][: len(images)] == pytest.approx(values, rel=1e-6)


def test_neighbours_fire_on_as_many_images_together_as_the_index_says(described, index):
    row = int(np.argmax((described["cofiring"] != NONE).sum(axis=1)))
    latent = int(described["latents"][row])
    mine = set(index.image_max(latent)[0].tolist())
    for other, joint in zip(described["cofiring"][row], described["cofiring_joint"][row], strict=True):
        if other != NONE:
            assert len(mine & set(index.image_max(int(other))[0].tolist())) == joint


def test_decoder_neighbours_are_sorted_by_cosine(described, steerable):
    W = steerable.sae.W_dec.detach().numpy().astype(np.float64)
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    row = 5
    others = described["decoder"][row]
    cosines = W[others] @ W[described["latents"][row]]
    assert described["decoder_scores"][row] == pytest.approx(cosines, abs=1e-5)
    assert (np.diff(cosines) <= 1e-6).all()


def test_classes_are_counted_among_the_labelled_top_images(described, small_world):
    assert described.found_in.class_names == small_world.class_names
    for row in range(0, len(described), 41):
        top = described["top_max_images"][row]
        labels = small_world.label_numbers[top[top != NONE]]
        expected = np.bincount(labels[labels >= 0], minlength=len(small_world.class_names))
        assert described["class_counts"][row].tolist() == expected.tolist()


def test_labels_are_words_of_the_vocabulary_and_places_lie_on_the_map(described):
    known = described.has_embedding
    assert known.any()
    assert described.vocabulary == WORDS
    assert (described["labels"][known] != NONE).all()
    assert (described["labels"][~known] == NONE).all()
    assert {described.label(int(row)) for row in np.flatnonzero(known)} <= set(WORDS)
    assert np.abs(described["places"][known]).max() <= 1
    assert (np.diff(described["label_scores"][known], axis=1) <= 0).all()
    assert np.isfinite(described["clarity"][known]).all()


def test_the_same_index_gives_the_same_bytes(described, steerable, small_world, index, tmp_path):
    path = tmp_path / "again.arrays"
    describe_latents(steerable, small_world, index, path, WORDS, n_top=6)
    assert path.read_bytes() == described._file.path.read_bytes()


def test_the_built_in_words_differ():
    words = built_in_vocabulary()
    assert len(words) > 300
    assert len(set(words)) == len(words)


def test_too_few_words_cannot_label(steerable, small_world, index, tmp_path):
    with pytest.raises(InvalidInput, match="lead over the next"):
        describe_latents(steerable, small_world, index, tmp_path / "d", ("a", "b", "c"))


def test_a_file_of_another_kind_is_no_description(index):
    with pytest.raises(CorruptIndex):
        ConceptDescription.open(index.folder / "statistics.arrays")
