"""The demo SAE, trained by the product's own trainer, and what it must allow: a correction of the model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fulcrum.demo.recipe_clip import to_input
from fulcrum.demo.recipe_measure import HeldOut
from fulcrum.demo.recipe_pool import Log, Mixture, make_pool
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.models import ModelRef
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.quality import evaluate_sae
from fulcrum.science.sae.storage import save_sae
from fulcrum.science.sae.training.config import TrainConfig, TrainProgress
from fulcrum.science.sae.training.source import TensorSource
from fulcrum.science.sae.training.trainer import train_sae
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.loading import load_model
from fulcrum.science.vision.split import HookState, SplitTower
from fulcrum.science.vision.towers import split_tower


@dataclass(frozen=True)
class SaeTraining:
    """What the demo SAE is trained on. Every token of every image counts, CLS included."""

    hook_point: str = "visual.blocks.4.resid_post"
    d_sae: int = 1536
    k: int = 16
    n_images: int = 12_000
    n_tokens: int = 3_000_000
    learning_rate: float = 2e-3
    seed: int = 0


def demo_model(folder: Path) -> LoadedModel:
    """The demo CLIP as the product loads it."""
    return load_model(ModelRef(f"local-dir:{folder}"))


@torch.no_grad()
def read_activations(tower: SplitTower, images: NDArray[np.uint8], batch_size: int = 128) -> Tensor:
    """X at the hook point, (n_images, n_tokens, d_in) float32."""
    return torch.cat(
        [tower.prefix(to_input(images[i : i + batch_size])).x for i in range(0, len(images), batch_size)]
    )


def train_demo_sae(loaded: LoadedModel, training: SaeTraining, folder: Path, log: Log) -> Sae:
    """Train on freshly painted pictures of the CLIP's own mixture, save into `folder`, return the SAE."""
    tower = split_tower(loaded, HookPoint.parse(training.hook_point))
    # Stickers are a third of the mixture's pictures but a few per cent of its tokens; more of them, fewer clean ones.
    mixture = Mixture(clean=0.3, right=0.2, neutral=0.15, text=0.15, conflict=0.2, cue=0.0)
    x = read_activations(tower, make_pool(training.n_images, mixture, training.seed + 1).images)
    tokens = x.reshape(-1, tower.d_in)
    n_held_out = len(tokens) // 20

    def progress(now: TrainProgress) -> None:
        log(f"step {now.step}/{now.n_steps} fvu {now.fvu:.4f} l0 {now.l0:.1f} dead {now.dead_share:.3f}")

    config = TrainConfig(
        variant="topk",
        d_in=tower.d_in,
        d_sae=training.d_sae,
        k=training.k,
        n_tokens=training.n_tokens,
        learning_rate=training.learning_rate,
        seed=training.seed,
        hook_point=training.hook_point,
        model_name="fulcrum-demo",
        model_sha256=loaded.info.weights_sha256,
        preprocess_sha256=loaded.info.preprocess_sha256,
        metrics_every=100,
    )
    sae, _ = train_sae(config, TensorSource(tokens[n_held_out:]), progress)
    quality = evaluate_sae(sae, [tokens[:n_held_out]])
    log(f"SAE quality on held-out tokens: {quality}")
    numbers = {name: float(value) for name, value in vars(quality).items() if isinstance(value, int | float)}
    save_sae(sae, folder, numbers)
    return sae


@dataclass(frozen=True)
class CorrectionProbe:
    """What suppressing `latents` does: top-1 in [0, 1] before and after, on images that did not choose them."""

    latents: tuple[int, ...]
    clean_before: float
    clean_after: float
    attacked_before: float
    attacked_after: float


class _Suppressor:
    """Top-1 of a data set under suppression of chosen latents, from activations that are read once."""

    def __init__(self, tower: SplitTower, sae: Sae, classes: Tensor, data: HeldOut) -> None:
        self.tower, self.sae, self.classes = tower, sae, classes
        self.labels, self.words = torch.from_numpy(data.labels), torch.from_numpy(data.words)
        self.clean = torch.from_numpy(data.of_kind("none").nonzero()[0])
        self.attacked = torch.from_numpy(data.of_kind("attack").nonzero()[0])
        self.x = read_activations(tower, data.images)
        self.z = torch.cat([sae.encode(part) for part in self.x.split(64)])

    @torch.no_grad()
    def top1(self, latents: list[int], rows: Tensor) -> float:
        """Share of right predictions after `x' = x - sum_j z_j d_j` at every token."""
        chosen = torch.tensor(latents, dtype=torch.long)
        n_right = 0
        for part in rows.split(128):
            x = self.x[part] - self.z[part][..., chosen] @ self.sae.directions(chosen)
            embeds = self.tower.suffix(HookState(x))
            n_right += int(((embeds @ self.classes.T).argmax(1) == self.labels[part]).sum())
        return n_right / len(rows)

    def ranking(self) -> list[int]:
        """Latents by how much their first-order removal moves attacked images from the word to the object."""
        effect = torch.zeros(self.sae.config.d_sae)
        directions = self.sae.directions(torch.arange(self.sae.config.d_sae))
        for part in self.attacked.split(64):
            x = self.x[part].clone().requires_grad_(True)
            cosines = F.normalize(self.tower.suffix(HookState(x)), dim=-1) @ self.classes.T
            margin = cosines.gather(1, self.labels[part, None]) - cosines.gather(1, self.words[part, None])
            (gradient,) = torch.autograd.grad(margin.sum(), x)
            effect -= (self.z[part] * (gradient @ directions.T)).sum((0, 1))
        return effect.argsort(descending=True).tolist()


def probe_correction(
    loaded: LoadedModel,
    sae: Sae,
    classes: Tensor,
    discover: HeldOut,
    confirm: HeldOut,
    max_clean_loss: float = 0.01,
    n_candidates: int = 40,
) -> CorrectionProbe:
    """Greedy suppression found on `discover`, measured on `confirm`: the shortest form of the product's search.

    A candidate stays when attacked top-1 gains 0.1 points and clean top-1 keeps within `max_clean_loss`; ten
    rejections in a row end the search. `classes` is (n_classes, d_embed), normalised.
    """
    tower = split_tower(loaded, HookPoint.parse(sae.config.hook_point))
    found = _Suppressor(tower, sae, classes, discover)
    chosen: list[int] = []
    best, clean = found.top1([], found.attacked), found.top1([], found.clean)
    n_rejected = 0
    for latent in found.ranking()[:n_candidates]:
        trial = [*chosen, latent]
        gained = found.top1(trial, found.attacked)
        if gained >= best + 0.001 and found.top1(trial, found.clean) >= clean - max_clean_loss:
            chosen, best, n_rejected = trial, gained, 0
        elif (n_rejected := n_rejected + 1) >= 10:
            break
    judged = _Suppressor(tower, sae, classes, confirm)
    return CorrectionProbe(
        latents=tuple(chosen),
        clean_before=judged.top1([], judged.clean),
        clean_after=judged.top1(chosen, judged.clean),
        attacked_before=judged.top1([], judged.attacked),
        attacked_after=judged.top1(chosen, judged.attacked),
    )
