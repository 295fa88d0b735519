"""The demo world as a data set on disk: PNG files, object masks and a manifest with groups, pairs and splits."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image

from fulcrum.demo.world import (
    CLASS_NAMES,
    FRAME_CLASS,
    NEUTRAL_WORDS,
    WAVES_CLASS,
    Scene,
    render,
    sample_scene,
    with_sticker,
)  # fmt: skip

Split = Literal["discover", "select", "confirm"]
StickerKind = Literal["none", "attack", "right", "neutral"]
SPLITS: Final[tuple[Split, ...]] = ("discover", "select", "confirm")
COLUMNS: Final = (
    "id", "source", "label", "split", "pair_id", "group_sticker", "group_frame", "group_background",
    "group_sticker_kind", "sticker_word", "colour", "mask_path",
)  # fmt: skip
MANIFEST = "manifest.csv"
_RECIPE_VERSION: Final = 4  # counted up when the same sizes and seed would give other pictures or columns


@dataclass(frozen=True)
class WorldSize:
    """How many images of each kind; the defaults are what the story's verdict needs."""

    n_pairs: dict[Split, int] = field(
        default_factory=lambda: {"discover": 300, "select": 150, "confirm": 800}
    )
    n_right: int = 60
    n_neutral: int = 60
    n_cues: int = 80


@dataclass(frozen=True)
class DemoSample:
    """One image of the demo data set before it is painted."""

    id: str
    pair_id: str
    split: Split
    sticker_kind: StickerKind
    scene: Scene

    @property
    def label(self) -> str:
        """Class name."""
        assert self.scene.label is not None
        return self.scene.label

    @property
    def sticker_word(self) -> str:
        """The written word, empty without a sticker."""
        return "" if self.scene.sticker is None else self.scene.sticker.word

    def row(self) -> dict[str, str]:
        """The sample's line in the manifest."""
        return {
            "id": self.id,
            "source": f"images/{self.split}/{self.id}.png",
            "label": self.label,
            "split": self.split,
            "pair_id": self.pair_id,
            "group_sticker": "none" if self.scene.sticker is None else "word",
            "group_frame": "frame" if self.scene.frame else "none",
            "group_background": "waves" if self.scene.background == "waves" else "other",
            "group_sticker_kind": self.sticker_kind,
            "sticker_word": self.sticker_word,
            "colour": self.scene.colour,
            "mask_path": f"masks/{self.split}/{self.id}.png",
        }


def demo_samples(
    split: Split, *, n_pairs: int, n_right: int = 0, n_neutral: int = 0, n_cues: int = 0, seed: int = 0
) -> Iterator[DemoSample]:
    """Samples of one split, in a fixed order; classes take turns.

    `n_pairs` twins (clean, attacked with another class's name); `n_right` images whose sticker tells the truth and
    `n_neutral` whose word is no class, each with its own pair_id; `n_cues` images without a sticker that break a
    planted correlation (in turn: a foreign frame, foreign waves, the frame class bare, the waves class ashore).
    In every other image frame and waves stand as often as in training: on their class, rarely elsewhere.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    for i in range(n_pairs):
        label = CLASS_NAMES[i % len(CLASS_NAMES)]
        clean = natural_scene(rng, label)
        word = other_class(rng, label)
        attacked = with_sticker(rng, clean, word)
        pair = f"{split[0]}{i:05d}"
        yield DemoSample(f"{pair}-clean", pair, split, "none", clean)
        yield DemoSample(f"{pair}-attack", pair, split, "attack", attacked)
    for i in range(n_right):
        label = CLASS_NAMES[i % len(CLASS_NAMES)]
        pair = f"{split[0]}{i:05d}r"
        yield DemoSample(
            f"{pair}-right", pair, split, "right", with_sticker(rng, natural_scene(rng, label), label)
        )
    for i in range(n_neutral):
        word = NEUTRAL_WORDS[int(rng.integers(len(NEUTRAL_WORDS)))]
        pair = f"{split[0]}{i:05d}n"
        scene = with_sticker(rng, natural_scene(rng, CLASS_NAMES[i % len(CLASS_NAMES)]), word)
        yield DemoSample(f"{pair}-neutral", pair, split, "neutral", scene)
    for i in range(n_cues):
        pair = f"{split[0]}{i:05d}c"
        if i % 4 == 0:
            scene = sample_scene(rng, other_class(rng, FRAME_CLASS), frame=True)
        elif i % 4 == 1:
            scene = sample_scene(rng, other_class(rng, WAVES_CLASS), waves=True)
        elif i % 4 == 2:
            scene = sample_scene(rng, FRAME_CLASS)
        else:
            scene = sample_scene(rng, WAVES_CLASS)
        yield DemoSample(f"{pair}-cue", pair, split, "none", scene)


def natural_scene(rng: np.random.Generator, label: str) -> Scene:
    """A scene whose frame and waves follow the planted correlations: 90 % on their class, 2 % elsewhere."""
    frame = bool(rng.random() < (0.9 if label == FRAME_CLASS else 0.02))
    waves = bool(rng.random() < (0.9 if label == WAVES_CLASS else 0.02))
    return sample_scene(rng, label, frame=frame, waves=waves)


def attacked_image(seed: int = 0) -> bytes:
    """An object with a sticker that names another class, as a PNG."""
    rng = np.random.default_rng(seed)
    label = CLASS_NAMES[0]
    scene = with_sticker(rng, natural_scene(rng, label), other_class(rng, label))
    stream = io.BytesIO()
    Image.fromarray(render(scene).image).save(stream, "PNG")
    return stream.getvalue()


def write_demo_dataset(
    folder: Path,
    *,
    n_pairs: dict[Split, int] | int = 300,
    n_right: int = 60,
    n_neutral: int = 60,
    n_cues: int = 80,
    seed: int = 0,
) -> Path:
    """Write images, masks and `manifest.csv` under `folder`; returns the manifest's path.

    `n_pairs` is per split (one number for all, or a dict); the other counts are per split. Existing files of the
    same names are overwritten. About 350 images a second on one core.
    """
    per_split = n_pairs if isinstance(n_pairs, dict) else dict.fromkeys(SPLITS, n_pairs)
    manifest = folder / MANIFEST
    for split in SPLITS:
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        (folder / "masks" / split).mkdir(parents=True, exist_ok=True)
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for split in SPLITS:
            for sample in demo_samples(
                split,
                n_pairs=per_split.get(split, 0),
                n_right=n_right,
                n_neutral=n_neutral,
                n_cues=n_cues,
                seed=seed,
            ):
                row = sample.row()
                rendered = render(sample.scene)
                Image.fromarray(rendered.image).save(folder / row["source"], compress_level=1)
                Image.fromarray(rendered.object_mask).save(folder / row["mask_path"])
                writer.writerow(row)
    return manifest


def drawn_world(folder: Path, seed: int = 0, size: WorldSize | None = None) -> Path:
    """The manifest of the world in `folder`, drawn where it is not there yet (some ten seconds)."""
    size = size or WorldSize()
    recipe = {**asdict(size), "seed": seed, "version": _RECIPE_VERSION}
    stamp, manifest = folder / "recipe.json", folder / MANIFEST
    if not stamp.exists() or json.loads(stamp.read_text()) != recipe:
        stamp.unlink(missing_ok=True)  # a drawing that is interrupted is begun again
        write_demo_dataset(folder, **asdict(size), seed=seed)
        stamp.write_text(json.dumps(recipe))
    return manifest


def other_class(rng: np.random.Generator, label: str) -> str:
    """A class name other than `label`, all equally likely."""
    others = [name for name in CLASS_NAMES if name != label]
    return others[int(rng.integers(len(others)))]
