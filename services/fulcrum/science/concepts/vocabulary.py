"""The words that latents may be called: a text file, and its embeddings under templates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fulcrum.domain.errors import InvalidInput, InvalidPrompt
from fulcrum.domain.results import FloatArray
from fulcrum.domain.tasks import ClassSet
from fulcrum.science.concepts.vectors import unit_vectors


@dataclass(frozen=True)
class VocabularyEmbeddings:
    """Text embeddings `[label][template]` and those of the templates with nothing in them.

    Unnormalised or normalised, both are brought to norm 1 before they are subtracted. Raises InvalidInput for
    shapes that do not fit the names: the order of axes is fixed by them, never guessed (SCIENCE.md 8, traps
    9, 10).
    """

    labels: tuple[str, ...]
    templates: tuple[str, ...]
    embeddings: Float[np.ndarray, "n_labels n_templates d_embed"]
    empty: Float[np.ndarray, "n_templates d_embed"]

    def __post_init__(self) -> None:
        expected = (len(self.labels), len(self.templates))
        if self.embeddings.ndim != 3 or self.embeddings.shape[:2] != expected:
            raise InvalidInput(
                f"embeddings of shape {self.embeddings.shape} are not ({expected[0]} labels, "
                f"{expected[1]} templates, d_embed)"
            )
        if self.empty.shape != self.embeddings.shape[1:]:
            raise InvalidInput(
                f"empty of shape {self.empty.shape} is not (n_templates, d_embed), "
                f"which is {self.embeddings.shape[1:]} here"
            )

    def directions(self) -> Float[np.ndarray, "n_labels d_embed"]:
        """Mean over templates of the unit vectors along `E(t(label)) - E(t(""))`.

        The scalar product of a unit vector with it is the mean over templates of the cosines. Raises
        InvalidPrompt for a label that the text encoder does not tell from an empty one.
        """
        texts = unit_vectors(self.embeddings, "text embeddings")
        difference = texts - unit_vectors(self.empty, "empty text embeddings")[None]
        same = np.linalg.norm(difference, axis=-1) < 1e-9
        if same.any():
            label = self.labels[int(np.argmax(same.any(axis=1)))]
            raise InvalidPrompt(f"label {label!r} has the same embedding as an empty text")
        directions: FloatArray = unit_vectors(difference, "text embeddings").mean(axis=1)
        return directions


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Labels of a UTF-8 text file, one to a line, in order.

    White space is trimmed and runs of it become one space; blank lines and lines that start with `#` are
    skipped; a label that stood before is taken once. Raises InvalidInput for a file that is missing, not
    text, or without labels, and InvalidPrompt for a label with control characters.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"cannot read the vocabulary {path.name!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the vocabulary {path.name!r} is not UTF-8 text (byte {error.start})") from error
    labels: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        label = " ".join(line.split())
        if not label or label.startswith("#"):
            continue
        if not label.isprintable():
            raise InvalidPrompt(f"line {number} of the vocabulary {path.name!r} holds control characters")
        labels[label] = None
    if not labels:
        raise InvalidInput(f"the vocabulary {path.name!r} holds no label")
    return tuple(labels)


def embed_vocabulary(
    encode_text: Callable[[list[str]], FloatArray],
    labels: Sequence[str],
    templates: Sequence[str],
    chunk: int = 256,
) -> VocabularyEmbeddings:
    """Embeddings of every label in every template; `encode_text` maps n texts to (n, d_embed).

    Raises EmptyPrompts or InvalidPrompt for blank or doubled labels and for templates without exactly one
    `{}`.
    """
    task = ClassSet(tuple(labels), tuple(templates))
    if len(set(task.templates)) != len(task.templates):
        raise InvalidPrompt(f"templates must differ: {list(task.templates)}")
    if chunk < 1:
        raise InvalidInput(f"chunk={chunk} must be >= 1")
    texts = [text for of_label in task.prompts() for text in of_label]
    texts += [t.replace("{}", "") for t in task.templates]
    parts = [np.asarray(encode_text(texts[i : i + chunk])) for i in range(0, len(texts), chunk)]
    vectors = np.concatenate(parts)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise InvalidInput(f"encode_text gave shape {vectors.shape} for {len(texts)} texts")
    n_labels, n_templates = len(task.names), len(task.templates)
    return VocabularyEmbeddings(
        task.names,
        task.templates,
        vectors[: n_labels * n_templates].reshape(n_labels, n_templates, -1),
        vectors[n_labels * n_templates :],
    )
