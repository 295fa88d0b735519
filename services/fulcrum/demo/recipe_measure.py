"""What the demo CLIP knows and where it fails, measured on scenes it has not seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fulcrum.demo.recipe_clip import to_input
from fulcrum.demo.world import CLASS_NAMES, FRAME_CLASS, TEMPLATES, WAVES_CLASS, render
from fulcrum.demo.world_dataset import DemoSample, Split, demo_samples


@dataclass(frozen=True)
class ZeroShot:
    """Shares in [0, 1]. `attacked_as_word` is the share of attacked errors that are the written word; the last two
    are top-1 on images which break a planted correlation, and how often a foreign cue pulls to the cue's class.
    """

    n_pairs: int
    clean_top1: float
    attacked_top1: float
    attacked_as_word: float
    right_top1: float
    neutral_top1: float
    cue_broken_top1: float
    cue_pull: float

    def __str__(self) -> str:
        return " ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in vars(self).items())


@dataclass(frozen=True)
class HeldOut:
    """Painted held-out samples of one split."""

    images: NDArray[np.uint8]
    samples: Sequence[DemoSample]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class index of every image."""
        return np.array([CLASS_NAMES.index(sample.label) for sample in self.samples])

    @property
    def words(self) -> NDArray[np.int64]:
        """Class index of the written word, -1 where it names no class."""
        return np.array(
            [CLASS_NAMES.index(s.sticker_word) if s.sticker_word in CLASS_NAMES else -1 for s in self.samples]
        )

    def of_kind(self, kind: str) -> NDArray[np.bool_]:
        """Images with this kind of sticker; those that break a cue are in none."""
        return np.array(
            [sample.sticker_kind == kind and not sample.id.endswith("-cue") for sample in self.samples]
        )


def held_out(split: Split, n_pairs: int, n_others: int, seed: int) -> HeldOut:
    """`n_pairs` twins and `n_others` each of right, neutral and cue-breaking images."""
    samples = list(
        demo_samples(split, n_pairs=n_pairs, n_right=n_others, n_neutral=n_others, n_cues=n_others, seed=seed)
    )
    return HeldOut(np.stack([render(sample.scene).image for sample in samples]), samples)


@torch.no_grad()
def class_embeddings(model: open_clip.CLIP, tokenizer: open_clip.SimpleTokenizer) -> Tensor:
    """(n_classes, d_embed): per class the normalised mean over templates of normalised text embeddings."""
    rows = []
    for name in CLASS_NAMES:
        text = F.normalize(model.encode_text(tokenizer([t.format(name) for t in TEMPLATES])), dim=-1)
        rows.append(F.normalize(text.mean(0), dim=-1))
    return torch.stack(rows)


@torch.no_grad()
def predict(
    encode: Callable[[Tensor], Tensor], classes: Tensor, images: NDArray[np.uint8], batch_size: int = 128
) -> NDArray[np.int64]:
    """Predicted class of every image, by cosine."""
    out = [
        (F.normalize(encode(to_input(images[i : i + batch_size])), dim=-1) @ classes.T).argmax(1).numpy()
        for i in range(0, len(images), batch_size)
    ]
    return np.concatenate(out)


def zero_shot(model: open_clip.CLIP, tokenizer: open_clip.SimpleTokenizer, data: HeldOut) -> ZeroShot:
    """Zero-shot classification of the demo classes by `TEMPLATES`."""
    model.eval()
    return score(predict(model.encode_image, class_embeddings(model, tokenizer), data.images), data)


def score(predicted: NDArray[np.int64], data: HeldOut) -> ZeroShot:
    """The shares of a `ZeroShot` from predictions."""
    right = predicted == data.labels
    attacked = data.of_kind("attack")
    wrong = attacked & ~right
    cue = np.array([sample.id.endswith("-cue") for sample in data.samples])
    pulled = [
        predicted[i] == CLASS_NAMES.index(FRAME_CLASS if sample.scene.frame else WAVES_CLASS)
        for i, sample in enumerate(data.samples)
        if cue[i]
        and sample.label not in (FRAME_CLASS if sample.scene.frame else WAVES_CLASS,)
        and (sample.scene.frame or sample.scene.background == "waves")
    ]
    return ZeroShot(
        n_pairs=int(attacked.sum()),
        clean_top1=_mean(right[data.of_kind("none")]),
        attacked_top1=_mean(right[attacked]),
        attacked_as_word=_mean(predicted[wrong] == data.words[wrong]),
        right_top1=_mean(right[data.of_kind("right")]),
        neutral_top1=_mean(right[data.of_kind("neutral")]),
        cue_broken_top1=_mean(right[cue]),
        cue_pull=_mean(np.array(pulled, dtype=np.bool_)),
    )


def _mean(values: NDArray[np.bool_]) -> float:
    """The share of true values; 0.0 of none, which only an empty selection of the caller's own making can be."""
    return float(values.mean()) if len(values) else 0.0
