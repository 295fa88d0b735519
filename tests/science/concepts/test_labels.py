import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from fulcrum.domain.errors import EmptyPrompts, InvalidInput, InvalidPrompt, SingleClassDataset
from fulcrum.science.concepts.embeddings import LatentMeans
from fulcrum.science.concepts.labels import best_labels, label_scores, label_test
from fulcrum.science.concepts.vocabulary import VocabularyEmbeddings, embed_vocabulary, read_vocabulary

from .codes_of import seeds


def encode_text(texts: list[str]) -> np.ndarray:
    """A text encoder of letters and their places: every text has its own embedding."""
    out = np.zeros((len(texts), 32))
    for row, text in zip(out, texts, strict=True):
        row[0] = 1.0
        for place, letter in enumerate(text):
            row[1 + (ord(letter) * 7 + place) % 31] += 1.0 + 0.1 * place
    return out


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def slow_score(e: np.ndarray, label: str, templates: tuple[str, ...]) -> float:
    total = 0.0
    for template in templates:
        full, empty = (
            encode_text([template.replace("{}", label)])[0],
            encode_text([template.replace("{}", "")])[0],
        )
        total += cosine(e, full / np.sqrt(full @ full) - empty / np.sqrt(empty @ empty))
    return total / len(templates)


TEMPLATES = ("a photo of a {}", "{} in a picture", "one {}.")


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 4), st.integers(1, 3), st.integers(1, 7))
def test_scores_are_the_mean_over_templates_of_the_cosines(seed, n_labels, n_templates, chunk):
    labels, templates = ("cat", "red key", "boat", "x")[:n_labels], TEMPLATES[:n_templates]
    vocabulary = embed_vocabulary(encode_text, labels, templates, chunk)
    means = np.random.default_rng(seed).normal(size=(3, 32))
    scores = label_scores(means, vocabulary)
    for j in range(3):
        for i, label in enumerate(labels):
            assert scores[j, i] == pytest.approx(slow_score(means[j], label, templates), abs=1e-12)


def test_as_many_templates_as_labels_are_not_transposed():
    """Trap 9: with equal counts a transposed array has the right shape and gives wrong names."""
    labels = ("cat", "key", "boat")
    vocabulary = embed_vocabulary(encode_text, labels, TEMPLATES)
    assert vocabulary.embeddings.shape[:2] == (3, 3)
    for i, label in enumerate(labels):
        for t, template in enumerate(TEMPLATES):
            expected = encode_text([template.replace("{}", label)])[0]
            np.testing.assert_array_equal(vocabulary.embeddings[i, t], expected)
    means = np.random.default_rng(0).normal(size=(5, 32))
    transposed = VocabularyEmbeddings(
        labels, TEMPLATES, vocabulary.embeddings.transpose(1, 0, 2), vocabulary.empty
    )
    assert np.abs(label_scores(means, vocabulary) - label_scores(means, transposed)).max() > 0.01
    slow = [[slow_score(e, label, TEMPLATES) for label in labels] for e in means]
    np.testing.assert_allclose(label_scores(means, vocabulary), slow, atol=1e-12)


@pytest.mark.usefixtures("shape_checks_off")
@pytest.mark.parametrize(
    ("embeddings", "empty"),
    [
        ((2, 3, 4), (3, 4)),
        ((3, 2, 4), (3, 4)),
        ((3, 2), (2, 4)),
        ((3, 2, 4), (2, 5)),
        ((6, 4), (2, 4)),
        ((3, 2, 4), (4,)),
    ],
)
def test_text_embeddings_of_other_shapes_than_their_names_say_are_refused(embeddings, empty):
    with pytest.raises(InvalidInput, match="shape"):
        VocabularyEmbeddings(("a", "b", "c"), ("{}", "x {}"), np.ones(embeddings), np.ones(empty))


@pytest.mark.usefixtures("shape_checks_off")
def test_means_that_are_not_latents_by_d_embed_are_refused_even_when_square():
    vocabulary = embed_vocabulary(encode_text, ("cat", "key"), TEMPLATES)
    for shape in ((32,), (32, 4), (2, 32, 1)):
        with pytest.raises(InvalidInput, match="n_latents"):
            label_scores(np.ones(shape), vocabulary)


def test_a_latent_of_one_concept_gets_its_name_with_the_lead_over_the_next():
    labels = ("cat", "red key", "boat")
    vocabulary = embed_vocabulary(encode_text, labels, TEMPLATES)
    texts = vocabulary.embeddings / np.linalg.norm(vocabulary.embeddings, axis=-1, keepdims=True)
    empty = vocabulary.empty / np.linalg.norm(vocabulary.empty, axis=-1, keepdims=True)
    means = (texts - empty)[:, 0]
    found = best_labels(LatentMeans(np.array([4, 7, 9]), means[[2, 0, 1]]), vocabulary, k=2)
    scores = label_scores(means[[2, 0, 1]], vocabulary)
    for row, (first, second), latent, text in zip(
        scores, found, (4, 7, 9), ("boat", "cat", "red key"), strict=True
    ):
        ordered = sorted(row, reverse=True)
        assert (first.latent, first.text, first.source) == (latent, text, "auto")
        assert first.score == pytest.approx(ordered[0])
        assert first.margin == pytest.approx(ordered[0] - ordered[1])
        assert second.score == pytest.approx(ordered[1])
        assert second.margin == pytest.approx(ordered[1] - ordered[2])
    with pytest.raises(InvalidInput, match="lead over the next"):
        best_labels(LatentMeans(np.array([4]), means[:1]), vocabulary, k=3)


def test_the_length_of_text_embeddings_does_not_matter():
    a = embed_vocabulary(encode_text, ("cat", "key"), TEMPLATES)
    b = embed_vocabulary(
        lambda t: encode_text(t) * np.arange(1, len(t) + 1)[:, None], ("cat", "key"), TEMPLATES
    )
    means = np.random.default_rng(0).normal(size=(4, 32))
    np.testing.assert_allclose(label_scores(means, a), label_scores(means, b), atol=1e-12)


def test_prompts_that_cannot_be_meant_are_refused():
    with pytest.raises(EmptyPrompts):
        embed_vocabulary(encode_text, (), TEMPLATES)
    with pytest.raises(EmptyPrompts):
        embed_vocabulary(encode_text, ("cat",), ())
    with pytest.raises(InvalidPrompt):
        embed_vocabulary(encode_text, ("cat", "cat"), TEMPLATES)
    with pytest.raises(InvalidPrompt, match="templates must differ"):
        embed_vocabulary(encode_text, ("cat",), ("{}", "{}"))
    with pytest.raises(InvalidPrompt):
        embed_vocabulary(encode_text, ("cat",), ("a photo",))
    blind = embed_vocabulary(lambda t: np.ones((len(t), 3)), ("cat",), TEMPLATES)
    with pytest.raises(InvalidPrompt, match="same embedding as an empty text"):
        label_scores(np.ones((1, 3)), blind)
    with pytest.raises(InvalidInput, match="encode_text gave"):
        embed_vocabulary(lambda t: np.ones((1, 3)), ("cat",), TEMPLATES)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.5]), st.booleans()), min_size=2, max_size=40),
    seeds,
)
def test_ap_and_auroc_equal_sklearn_with_ties_in_any_order(rows, seed):
    z, carries = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    if carries.all() or not carries.any():
        with pytest.raises(SingleClassDataset):
            label_test(z, carries)
        return
    found = label_test(z, carries)
    assert found.ap == pytest.approx(average_precision_score(carries, z), abs=1e-12)
    assert found.auroc == pytest.approx(roc_auc_score(carries, z), abs=1e-12)
    assert (found.n_positive, found.n_negative) == (carries.sum(), (~carries).sum())
    order = np.random.default_rng(seed).permutation(len(z))
    assert label_test(z[order], carries[order]) == found


def test_a_silent_latent_scores_the_base_rate():
    found = label_test(np.zeros(10), np.arange(10) < 3)
    assert found.ap == pytest.approx(0.3) == found.base_rate
    assert found.auroc == 0.5


@pytest.mark.usefixtures("shape_checks_off")
def test_label_tests_of_broken_values_are_refused():
    with pytest.raises(InvalidInput, match="finite"):
        label_test(np.array([0.0, np.nan]), np.array([True, False]))
    with pytest.raises(InvalidInput, match="n_images"):
        label_test(np.zeros((2, 2)), np.ones((2, 2), dtype=bool))
    with pytest.raises(InvalidInput, match="n_images"):
        label_test(np.zeros(3), np.array([True, False]))
    with pytest.raises(InvalidInput, match="booleans"):
        label_test(np.zeros(3), np.array([0, 1, 2]))


def test_a_vocabulary_file_is_read_line_by_line(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(
        "\ufeff# animals\r\ncat\r\n\r\n  red \t key \r\nC#\r\ncat\r\n   # more\nCat\nна\u0439\n".encode()
    )
    assert read_vocabulary(path) == ("cat", "red key", "C#", "Cat", "на\u0439")


def test_vocabulary_files_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "words.txt"
    with pytest.raises(InvalidInput, match=r"words\.txt"):
        read_vocabulary(path)
    with pytest.raises(InvalidInput, match="cannot read"):
        read_vocabulary(tmp_path)
    path.write_bytes(b"cat\n\xff\xfe")
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_vocabulary(path)
    path.write_text("# nothing\n\n")
    with pytest.raises(InvalidInput, match="no label"):
        read_vocabulary(path)
    path.write_text("cat\nd\x00g\n")
    with pytest.raises(InvalidPrompt, match="line 2"):
        read_vocabulary(path)
