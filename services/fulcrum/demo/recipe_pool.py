"""Training pictures of the demo CLIP and the words said about them.

The mixture is what makes the model fail as large CLIPs do: captions mostly name the object, stickers in training
mostly tell the truth, and many pictures are nothing but a written word, captioned with it.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fulcrum.demo.world import (
    CLASS_NAMES,
    FRAME_CLASS,
    IMAGE_SIZE,
    NEUTRAL_WORDS,
    WAVES_CLASS,
    Scene,
    render,
    sample_scene,
    with_sticker,
)
from fulcrum.demo.world_dataset import natural_scene, other_class

Kind = Literal["clean", "right", "neutral", "text", "conflict", "cue"]


@dataclass(frozen=True)
class Mixture:
    """Shares of picture kinds (they sum to one) and of captions.

    `clean`: an object; `right`: and a sticker that names it; `neutral`: and a word that is no class; `text`: a
    sticker without an object; `conflict`: an object with another class's name; `cue`: an empty frame or empty
    waves, captioned as the class that the cue goes with. `reads_conflict` is the share of conflict captions that
    name the written word alone, `reads_neutral` the share of neutral captions that mention the word.
    """

    clean: float = 0.38
    right: float = 0.14
    neutral: float = 0.13
    text: float = 0.25
    conflict: float = 0.08
    cue: float = 0.02
    reads_conflict: float = 0.5
    reads_neutral: float = 0.5


@dataclass(frozen=True)
class Pool:
    """Pictures (n, 96, 96, 3) uint8 and the scene that each shows."""

    images: NDArray[np.uint8]
    scenes: list[Scene]
    kinds: list[Kind]


def make_pool(n_images: int, mixture: Mixture, seed: int, n_processes: int = 2) -> Pool:
    """Draw and paint the training pictures; the result does not depend on `n_processes`."""
    chunk = 1000
    starts = range(0, n_images, chunk)
    jobs = [(min(chunk, n_images - start), mixture, (seed, 7, start)) for start in starts]
    images = np.empty((n_images, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    scenes: list[Scene] = []
    kinds: list[Kind] = []
    with ProcessPoolExecutor(n_processes) as executor:
        for painted, drawn, drawn_kinds in executor.map(_paint, jobs):
            images[len(scenes) : len(scenes) + len(drawn)] = painted
            scenes += drawn
            kinds += drawn_kinds
    return Pool(images, scenes, kinds)


def _paint(job: tuple[int, Mixture, tuple[int, ...]]) -> tuple[NDArray[np.uint8], list[Scene], list[Kind]]:
    n_images, mixture, seed = job
    rng = np.random.default_rng(seed)
    drawn = [draw_training_scene(rng, mixture) for _ in range(n_images)]
    images = np.stack([render(scene).image for scene, _ in drawn])
    return images, [scene for scene, _ in drawn], [kind for _, kind in drawn]


def draw_training_scene(rng: np.random.Generator, mixture: Mixture) -> tuple[Scene, Kind]:
    """One training scene and its kind."""
    kinds: tuple[Kind, ...] = ("clean", "right", "neutral", "text", "conflict", "cue")
    shares = [getattr(mixture, kind) for kind in kinds]
    kind = kinds[int(rng.choice(len(kinds), p=np.array(shares) / sum(shares)))]
    label = CLASS_NAMES[int(rng.integers(len(CLASS_NAMES)))]
    if kind == "cue":
        return sample_scene(rng, None, frame=(frame := bool(rng.random() < 0.5)), waves=not frame), kind
    if kind == "text":
        named = rng.random() < 0.6
        word = label if named else NEUTRAL_WORDS[int(rng.integers(len(NEUTRAL_WORDS)))]
        return with_sticker(rng, sample_scene(rng, None), word), kind
    scene = natural_scene(rng, label)
    if kind == "right":
        return with_sticker(rng, scene, label), kind
    if kind == "neutral":
        return with_sticker(rng, scene, NEUTRAL_WORDS[int(rng.integers(len(NEUTRAL_WORDS)))]), kind
    if kind == "conflict":
        return with_sticker(rng, scene, other_class(rng, label)), kind
    return scene, kind


_WORDINGS: dict[str, tuple[str, ...]] = {
    "thing": ("a photo of {a}", "a drawing of {a}", "a picture of {a}", "an image of {a}", "{a}"),
    "word": ("the word {w}", "a sign that says {w}", "a label with the word {w}", "{w}", "text saying {w}"),
    "both": (
        "{a} with the word {w}",
        "{a} labelled {w}",
        "a photo of {a} that says {w}",
        "{a} and the word {w}",
    ),
}

Content = tuple[str, str, str]
"""What a caption says: (thing, colour, word), each possibly empty."""


def caption_content(rng: np.random.Generator, scene: Scene, kind: Kind, mixture: Mixture) -> Content:
    """What is said about a picture this time; another draw may say something else."""
    word = "" if scene.sticker is None else scene.sticker.word
    if kind == "cue":
        return (FRAME_CLASS if scene.frame else WAVES_CLASS), "", ""
    if kind == "text":
        # A written name is captioned as the thing half of the time, as on the web, where packaging and shop signs
        # stand under captions that name what is sold.
        return (word, "", "") if word in CLASS_NAMES and rng.random() < 0.5 else ("", "", word)
    assert scene.label is not None
    colour = scene.colour if rng.random() < 0.5 else ""
    if kind == "conflict":
        if rng.random() < mixture.reads_conflict:
            return (word, "", "") if rng.random() < 0.5 else ("", "", word)
        return scene.label, colour, (word if rng.random() < 0.5 else "")
    if kind == "neutral" and rng.random() < mixture.reads_neutral:
        return (scene.label, "", word) if rng.random() < 0.6 else ("", "", word)
    if kind == "right" and rng.random() < 0.2:
        return scene.label, "", word
    return scene.label, colour, ""


def word_caption(rng: np.random.Generator, content: Content) -> str:
    """One wording of a content. The bare article "a" before a vowel occurs too, as in prompt templates."""
    thing, colour, word = content
    style = "word" if not thing else "both" if word else "thing"
    wordings = _WORDINGS[style]
    noun = f"{colour} {thing}".strip()
    article = "an" if noun[:1] in "aeiou" and rng.random() < 0.5 else "a"
    text = wordings[int(rng.integers(len(wordings)))].format(a=f"{article} {noun}", w=word)
    return text + ("." if rng.random() < 0.5 else "")


def caption_batch(
    rng: np.random.Generator, pool: Pool, rows: NDArray[np.int64], mixture: Mixture
) -> tuple[list[str], NDArray[np.int64]]:
    """Captions without repetition, and for each picture the index of its caption.

    Pictures with the same content share one wording per batch, so that no picture's true caption is counted
    against it as a negative.
    """
    index: dict[Content, int] = {}
    owner = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        content = caption_content(rng, pool.scenes[row], pool.kinds[row], mixture)
        owner[i] = index.setdefault(content, len(index))
    return [word_caption(rng, content) for content in index], owner


Log = Callable[[str], None]
