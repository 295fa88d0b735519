"""What to train and how."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from fulcrum.domain.errors import InvalidSaeConfig
from fulcrum.domain.models import Variant
from fulcrum.science.sae.base import Sae, SaeConfig


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Everything that changes the numbers is in here, the activations excepted."""

    variant: Variant
    d_in: int
    d_sae: int
    n_tokens: int  # in total, over as many epochs as that takes
    k: int = 32  # topk, batch_topk, matryoshka
    prefixes: tuple[int, ...] = ()  # matryoshka; empty: d_sae/8, /4, /2, /1
    batch_size: int = 4096
    learning_rate: float = 2e-3
    warmup_share: float = 0.05
    decay_share: float = 0.2
    seed: int = 0
    # Tokens held and shuffled at a time; tokens of one image stand together in the stream.
    buffer_tokens: int = 131_072
    buffer_dtype: Literal["float32", "float16"] = "float32"
    subtract_mean: bool = True
    rescale: bool = True  # so that the mean |N(x)| is sqrt(d_in)
    # A latent is dead when it has not fired for this many tokens; None: a twentieth of the run, between 16
    # batches and 10 M tokens (the number of Gao et al.).
    dead_after_tokens: int | None = None
    aux_weight: float = 1 / 32
    k_aux: int | None = None  # None: d_in // 2 (Gao et al.)
    theta_rate: float = 0.01  # of the running mean of the BatchTopK threshold
    l1_weight: float = 0.15  # relu and gated, relative to sqrt(d_in)
    l0_weight: float = 0.002  # jumprelu, relative to d_in
    initial_threshold: float = 0.1  # jumprelu
    bandwidth: float = 0.05  # jumprelu: width of the rectangle kernel
    # Share of the run over which the sparsity weight grows from 0 (relu, gated, jumprelu).
    sparsity_warmup_share: float = 0.1
    device: str = "cpu"
    hook_point: str = ""
    model_name: str = ""
    model_sha256: str = ""
    preprocess_sha256: str = ""
    metrics_every: int = 10  # steps
    # End before `n_tokens` when the loss has stopped falling: the decay of the learning rate begins then.
    early_stop: bool = False
    flat_windows: int = 2  # so many windows of a twentieth of the run ...
    flat_gain: float = 0.01  # ... in which the mean loss falls by less than this share

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise InvalidSaeConfig(f"variant={self.variant!r} must be one of {get_args(Variant)}")
        if self.buffer_dtype not in ("float32", "float16"):
            raise InvalidSaeConfig(f"buffer_dtype={self.buffer_dtype!r} must be float32 or float16")
        self.sae_config()
        positive = (
            "n_tokens",
            "batch_size",
            "learning_rate",
            "buffer_tokens",
            "theta_rate",
            "bandwidth",
            "metrics_every",
            "flat_windows",
        )
        for name in positive:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InvalidSaeConfig(f"{name}={value!r} must be positive")
        for name in ("aux_weight", "l1_weight", "l0_weight", "initial_threshold", "flat_gain"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InvalidSaeConfig(f"{name}={value!r} must be >= 0")
        for name in ("warmup_share", "decay_share", "sparsity_warmup_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidSaeConfig(f"{name}={getattr(self, name)!r} must be in 0 .. 1")
        if self.n_tokens < self.batch_size:
            raise InvalidSaeConfig(
                f"n_tokens={self.n_tokens} must be at least one batch of {self.batch_size}"
            )
        for name in ("dead_after_tokens", "k_aux"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidSaeConfig(f"{name}={value!r} must be >= 1 or None")

    @property
    def n_steps(self) -> int:
        """Optimiser steps: whole batches only."""
        return self.n_tokens // self.batch_size

    @property
    def dead_after(self) -> int:
        """`dead_after_tokens` with its default filled in."""
        if self.dead_after_tokens is not None:
            return self.dead_after_tokens
        return max(16 * self.batch_size, min(10_000_000, self.n_tokens // 20))

    def sae_config(self) -> SaeConfig:
        """Shape and origin of the SAE to train. Raises InvalidSaeConfig."""
        options: dict[str, Any] = {}
        if self.variant in ("topk", "batch_topk", "matryoshka"):
            if not 1 <= self.k <= self.d_sae:
                raise InvalidSaeConfig(f"k={self.k} must be in 1 .. d_sae={self.d_sae}")
            options["k"] = self.k
        if self.variant == "matryoshka":
            halves = {max(1, self.d_sae // part) for part in (8, 4, 2, 1)}
            options["prefixes"] = list(self.prefixes or sorted(halves))
        return SaeConfig(
            self.variant,
            self.d_in,
            self.d_sae,
            self.hook_point,
            self.model_name,
            self.model_sha256,
            self.preprocess_sha256,
            options,
        )


@dataclass(frozen=True)
class TrainProgress:
    """Where a run stands; the metrics are of the latest batch, in the SAE's own units."""

    step: int
    n_steps: int
    tokens: int
    fvu: float
    l0: float
    dead_share: float
    cosine: float
    learning_rate: float
    tokens_per_s: float
    eta_s: float
    loss: float  # mean over tokens, without AuxK
    probed: dict[str, float] = field(default_factory=dict)  # what `Probing.measure` found at this step


# Returns False to stop after this step (the checkpoint is written first), anything else to go on.
ProgressCallback = Callable[[TrainProgress], bool | None]
# After each step, with the number of steps done and that of the run as it stands: the same, and may raise.
StepCallback = Callable[[int, int], bool | None]


@dataclass(frozen=True)
class Probing:
    """Looks at the SAE while it is trained: `measure` gets a copy, each `every` steps and at the end.

    `every` is a multiple of `metrics_every`, because what it finds becomes part of the metrics.
    """

    measure: Callable[[Sae], dict[str, float]]
    every: int


@dataclass(frozen=True)
class TrainReport:
    """What a run did."""

    completed: bool
    stopped_early: bool  # because the loss had stopped falling
    steps: int
    tokens: int
    seconds: float
    cpu_seconds: float
    waiting_seconds: float  # spent in the activation source
    history: list[TrainProgress] = field(default_factory=list)
    checkpoint: Path | None = None
