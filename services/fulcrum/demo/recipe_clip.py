"""The demo CLIP: its configuration, its training on the demo world, its directory on disk."""

import gzip
import json
import logging
import math
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.multiprocessing.spawn import start_processes
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from fulcrum.demo.recipe_pool import Kind, Log, Mixture, Pool, caption_batch
from fulcrum.demo.world import IMAGE_SIZE, Scene

MODEL_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": IMAGE_SIZE,
            "layers": 6,
            "width": 192,
            "head_width": 32,
            "patch_size": 16,
            "mlp_ratio": 4.0,
        },
        "text_cfg": {
            "context_length": 40,
            "vocab_size": 514,
            "width": 128,
            "heads": 4,
            "layers": 2,
            # A byte-level vocabulary: 256 bytes, the same at the end of a word, start and end of text.
            "tokenizer_kwargs": {"bpe_path": "no_merges.txt.gz"},
        },
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


@dataclass(frozen=True)
class ClipTraining:
    """Length and pace of a training run. `minutes` is wall clock, after the pool is painted."""

    minutes: float = 40.0
    n_pool: int = 48_000
    n_processes: int = 2
    batch_size: int = 96  # per process; pictures of one process are not negatives of the other
    lr: float = 2e-3
    muon_lr: float = 8e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    seed: int = 0


def write_clip_config(folder: Path) -> None:
    """Write the configuration and the tokenizer's empty merges file; weights come later."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(MODEL_CONFIG, indent=2) + "\n", encoding="utf-8")
    # mtime=0 keeps the bytes equal from run to run. No newline after the header: it would count as a merge.
    (folder / "no_merges.txt.gz").write_bytes(gzip.compress(b"#version: 0.2", mtime=0))


def demo_tokenizer(folder: Path) -> open_clip.SimpleTokenizer:
    """The tokenizer of a demo CLIP directory, with `bpe_path` resolved against the directory."""
    text_cfg = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"][
        "text_cfg"
    ]
    bpe_path = folder / text_cfg["tokenizer_kwargs"]["bpe_path"]
    return open_clip.SimpleTokenizer(bpe_path=str(bpe_path), context_length=text_cfg["context_length"])


def new_clip(folder: Path, seed: int) -> open_clip.CLIP:
    """A CLIP with random weights, built by OpenCLIP from the directory's configuration."""
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    assert isinstance(model, open_clip.CLIP)
    return model


def load_clip(folder: Path) -> open_clip.CLIP:
    """The trained CLIP of a directory, in evaluation mode."""
    model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True)
    assert isinstance(model, open_clip.CLIP)
    return model.eval()


def save_clip(model: open_clip.CLIP, folder: Path) -> None:
    """Store the weights as float16 beside the configuration."""
    state = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})


def to_input(images: NDArray[np.uint8]) -> Tensor:
    """Pictures (n, h, w, 3) uint8 as the model's input (n, 3, h, w), in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def clip_loss(image: Tensor, text: Tensor, owner: Tensor, scale: Tensor) -> Tensor:
    """Symmetric contrastive loss of images (b, d) and distinct captions (u, d); `owner` (b) names each image's caption.

    A caption that belongs to several images has them all as positives, with equal weight.
    """
    logits = scale * image @ text.T
    per_image = F.cross_entropy(logits, owner)
    member = F.one_hot(owner, len(text)).T.float()
    per_text = -(member * F.log_softmax(logits.T, dim=1)).sum(1) / member.sum(1)
    # Weighted by the number of images, so that both directions count every image once.
    return (per_image + (per_text * member.sum(1)).sum() / len(image)) / 2


def _optimizers(model: open_clip.CLIP, training: ClipTraining) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks (fewer steps to the same loss), AdamW for everything else."""
    matrices = [p for n, p in model.named_parameters() if "resblocks" in n and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(
            matrices, lr=training.muon_lr, weight_decay=training.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=training.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train_clip(
    folder: Path,
    pool: Pool,
    mixture: Mixture,
    training: ClipTraining,
    log: Log,
    init: Path | None = None,
) -> None:
    """Train a demo CLIP into `folder` for `training.minutes`; `init` continues from another directory's weights.

    The schedule runs on the clock (warm-up, then cosine to zero), so a slower machine takes fewer steps instead of
    longer. The weights are saved every two minutes. One process per core with one thread each, gradients averaged:
    on a busy machine that is twice as fast as one process whose threads wait for each other at every operation.
    """
    write_clip_config(folder)
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images.npy"
        np.save(images, pool.images)
        job = _Job(
            folder, images, pool.scenes, pool.kinds, mixture, training, log, Path(scratch) / "meet", init
        )
        start_processes(_train_worker, (job,), nprocs=training.n_processes, start_method="spawn")


@dataclass(frozen=True)
class _Job:
    folder: Path
    images: Path
    scenes: list[Scene]
    kinds: list[Kind]
    mixture: Mixture
    training: ClipTraining
    log: Log
    meet: Path
    init: Path | None


def _train_worker(rank: int, job: _Job) -> None:
    training, log, parent = job.training, job.log, os.getppid()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # OpenCLIP warns that the weights are random; here they must be
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{job.meet}", rank=rank, world_size=training.n_processes
    )
    pool = Pool(np.load(job.images, mmap_mode="r"), job.scenes, job.kinds)
    tokenizer = demo_tokenizer(job.folder)
    model = new_clip(job.folder, training.seed)
    if job.init is not None:
        model.load_state_dict(load_clip(job.init).state_dict())
    parameters = list(model.parameters())
    optimizers = _optimizers(model, training)
    rng = np.random.default_rng([training.seed, 11, rank])
    model.train()
    start = saved = time.monotonic()
    budget, step, losses = training.minutes * 60, 0, 0.0
    clock = torch.zeros(1)
    while True:
        # The first process's clock decides for all, so that none waits for one that has stopped.
        # Where the recipe itself was killed nobody waits for its workers any more: they end too.
        clock[0] = time.monotonic() - start if os.getppid() == parent else math.inf
        torch.distributed.broadcast(clock, 0)
        elapsed = clock.item()
        if elapsed >= budget:
            break
        pace = min(1.0, (step + 1) / training.warmup_steps) * 0.5 * (1 + math.cos(math.pi * elapsed / budget))
        for optimizer, lr in zip(optimizers, (training.muon_lr, training.lr), strict=True):
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = lr * pace
        rows = rng.integers(len(pool.scenes), size=training.batch_size)
        loss = _batch_loss(model, tokenizer, pool, rows, job.mixture, rng)
        loss.backward()
        _average_gradients(parameters, training.n_processes)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        step += 1
        losses += loss.item()
        if rank == 0 and step % 50 == 0:
            rate = step * training.batch_size * training.n_processes / elapsed
            scale = model.logit_scale.exp().item()
            log(f"step {step} {elapsed:.0f}s loss {losses / 50:.3f} scale {scale:.1f} {rate:.0f} images/s")
            losses = 0.0
        if rank == 0 and time.monotonic() - saved > 120:
            saved = time.monotonic()
            save_clip(model, job.folder)
    if rank == 0:
        save_clip(model, job.folder)
        log(f"trained {step} steps")
    torch.distributed.destroy_process_group()


def _batch_loss(
    model: open_clip.CLIP,
    tokenizer: open_clip.SimpleTokenizer,
    pool: Pool,
    rows: NDArray[np.int64],
    mixture: Mixture,
    rng: np.random.Generator,
) -> Tensor:
    captions, owner = caption_batch(rng, pool, rows, mixture)
    images = to_input(pool.images[rows])
    # The plain attention kernel: with so few tokens it is 1.5 times as fast on a CPU as the tiled one.
    with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16):
        image = model.encode_image(images)
        text = model.encode_text(tokenizer(captions))
    return clip_loss(
        F.normalize(image.float(), dim=-1),
        F.normalize(text.float(), dim=-1),
        torch.from_numpy(owner),
        model.logit_scale.exp(),
    )


def _average_gradients(parameters: list[torch.nn.Parameter], n_processes: int) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= n_processes
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
