"""An SAE trained on a data set, as one question: what identifies it, how it runs, how what came out is judged."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from fulcrum.datasets.samples import Dataset
from fulcrum.domain.errors import (
    ComputationFailed,
    CorruptArtifact,
    InvalidDataset,
    InvalidHookPoint,
    InvalidSaeConfig,
    OutOfMemory,
)
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.jobs import TrainSae, content_key
from fulcrum.domain.tasks import ClassSet
from fulcrum.engine.device_memory import available_bytes, tells_full_memory
from fulcrum.engine.image_batches import image_batches
from fulcrum.engine.training import QualityCard, quality_card, training_activations
from fulcrum.science.attribution.targets import ZeroShotHead
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.quality import evaluate_sae, faithfulness
from fulcrum.science.sae.storage import sae_files
from fulcrum.science.sae.training.config import Probing, TrainConfig, TrainProgress
from fulcrum.science.sae.training.ranks import ALONE, Ranks
from fulcrum.science.sae.training.source import ActivationSource
from fulcrum.science.sae.training.trainer import train_sae
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.split import HookState
from fulcrum.science.vision.towers import split_tower

VERSION = 1  # of the numbers that the same question leads to

MAX_JUDGED = 512
_JUDGED_SHARE = 0.1
_PROBED = 128  # images whose activations are kept, so that the model can be asked again and again
_N_PROBES = 20
_MOST_POINTS = 1000  # of the curves
_TIMES = ("tokens_per_s", "eta_s")  # differ between two runs to the same SAE
_HEADER = "fulcrum"

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Division:
    """Images to train on and images to judge by; `held_out` says that these are others."""

    trained_on: Numbers
    judged: Numbers
    held_out: bool


def divide(dataset: Dataset, split: str | None, seed: int) -> Division:
    """Up to 512 images judge: of the other splits, or a tenth of all; those of a pair stay together.

    Raises InvalidDataset for a split that does not occur.
    """
    everyone = np.arange(len(dataset), dtype=np.int64)
    rng = np.random.default_rng(seed)
    if split is not None:
        trained_on = dataset.numbers(split=split)
        others = np.setdiff1d(everyone, trained_on)
        judged = np.sort(rng.permutation(others)[:MAX_JUDGED])
    else:
        # Both twins of a pair are nearly one image: one of them in training would make the other no judge.
        pairs = np.array([p or f"\0{i}" for i, p in enumerate(dataset.pair_ids)])
        names = rng.permutation(np.unique(pairs))
        n_wanted = min(MAX_JUDGED, int(_JUDGED_SHARE * len(dataset)))
        place = {name: i for i, name in enumerate(names)}
        order = np.argsort([place[p] for p in pairs], kind="stable")
        while 0 < n_wanted < len(order) and pairs[order[n_wanted]] == pairs[order[n_wanted - 1]]:
            n_wanted -= 1
        judged, trained_on = np.sort(order[:n_wanted]), np.sort(order[n_wanted:])
    if len(judged):
        return Division(trained_on, judged, True)
    return Division(trained_on, np.sort(rng.permutation(trained_on)[:MAX_JUDGED]), False)


@dataclass(frozen=True)
class Training:
    """A question that can be answered; made by `plan_training`."""

    loaded: LoadedModel
    dataset: Dataset
    config: TrainConfig
    division: Division
    task: ClassSet | None  # None where images that judge have no label

    @property
    def hook_point(self) -> HookPoint:
        """Where activations are read."""
        return HookPoint.parse(self.config.hook_point)

    @property
    def key(self) -> str:
        """Hash of all that determines the SAE.

        By how many processes it is trained is no part of it: as with threads, the order of additions is all that
        changes. So they share an answer that is stored, and one number of them goes on where another has stopped.
        """
        config = {k: v for k, v in asdict(self.config).items() if k not in ("device", "metrics_every")}
        sha256 = self.dataset.bytes_sha256
        return content_key(
            what="sae",
            version=VERSION,
            config=config,
            images=content_key(images=[sha256[n] for n in self.division.trained_on]),
            device_type=self.loaded.device.type,
            dtype=self.loaded.info.dtype,
        )


def plan_training(
    loaded: LoadedModel, dataset: Dataset, spec: TrainSae, model_name: str, n_processes: int = 1
) -> Training:
    """`model_name` is how the SAE calls its model; `n_processes` share the memory of the model's device.

    Raises InvalidHookPoint, InvalidSaeConfig, InvalidDataset (an unknown split, or fewer tokens than a batch),
    OutOfMemory for what this machine has no room for.
    """
    hook_point = HookPoint.parse(spec.hook_point or f"visual.blocks.{loaded.info.n_blocks // 2}.resid_post")
    if hook_point.tower != "visual":
        raise InvalidHookPoint(
            f"{hook_point} is in the text tower: images have activations in visual.blocks only"
        )
    tower = split_tower(loaded, hook_point)
    weights: dict[str, Any] = {}
    if spec.sparsity is not None:
        name = {"relu": "l1_weight", "gated": "l1_weight", "jumprelu": "l0_weight"}.get(spec.variant)
        if name is None:
            raise InvalidSaeConfig(f"sparsity={spec.sparsity:g}: k says how sparse a {spec.variant} SAE is")
        weights[name] = spec.sparsity
    n_steps = max(1, spec.n_tokens // max(1, spec.batch_size))
    config = TrainConfig(
        variant=spec.variant,
        d_in=tower.d_in,
        d_sae=spec.d_sae,
        n_tokens=spec.n_tokens,
        k=spec.k,
        batch_size=spec.batch_size,
        learning_rate=spec.learning_rate,
        early_stop=spec.early_stop,
        seed=spec.seed,
        device=str(loaded.device),
        hook_point=str(hook_point),
        model_name=model_name,
        model_sha256=loaded.info.weights_sha256,
        preprocess_sha256=loaded.info.preprocess_sha256,
        metrics_every=max(1, min(10, n_steps // 100), n_steps // _MOST_POINTS),
        **weights,
    )
    division = divide(dataset, spec.split, spec.seed)
    n_tokens = len(division.trained_on) * tower.n_tokens
    if n_tokens < spec.batch_size:
        raise InvalidDataset(
            f"{len(division.trained_on)} images of {dataset.name!r} to train on have {n_tokens} tokens, which is less "
            f"than one batch of batch_size={spec.batch_size}"
        )
    needed = training_bytes(config, n_tokens, n_processes)
    available = available_bytes(loaded.device)
    if available is not None and needed > available:
        raise OutOfMemory(
            f"training d_sae={spec.d_sae} at d_in={tower.d_in} with batch_size={spec.batch_size} takes about "
            f"{needed / 2**30:.1f} GiB, and {loaded.device.type} has {available / 2**30:.1f} GiB left",
            retry_after_s=5.0,
        )
    return Training(loaded, dataset, config, division, _task_of(dataset, division.judged))


def training_bytes(config: TrainConfig, n_tokens: int, n_processes: int = 1) -> int:
    """About what a training takes: weights with gradients and Adam's moments, copies, latents of a batch, buffer. Of
    these several processes share the latents alone.
    """
    sparse = config.variant in ("topk", "batch_topk", "matryoshka")
    weights = 6 * 2 * config.d_in * config.d_sae
    latents = (1 if sparse else 6) * config.batch_size * config.d_sae
    buffer = min(config.buffer_tokens, n_tokens) * config.d_in
    return 4 * (n_processes * (weights + buffer) + latents)


class Probe:
    """What a model makes of an SAE on a few images; their activations are kept, so asking again is cheap."""

    def __init__(self, training: Training, numbers: Numbers, head: ZeroShotHead | None) -> None:
        """Raises ComputationFailed where the answers do not depend on the hook point."""
        self._tower = split_tower(training.loaded, training.hook_point)
        self._head = head
        with torch.no_grad():
            batches = image_batches(training.loaded, training.dataset, numbers)
            self._states = [self._tower.prefix(b.pixels).rows(slice(0, len(b.numbers))) for b in batches]
            self._original = self._cosines([s.x for s in self._states])
            self._zeroed = self._cosines([torch.zeros_like(s.x) for s in self._states])
        samples = training.dataset.samples
        place = {} if head is None else {name: i for i, name in enumerate(head.class_names)}
        self._labels = np.array([place.get(samples[int(n)].label or "", 0) for n in numbers])
        if head is not None:
            faithfulness(self._original, self._original, self._zeroed, self._labels, head.logit_scale)

    @torch.no_grad()
    def __call__(self, sae: Sae) -> dict[str, float]:
        """`probe_fvu`, and with classes `ce_recovered` and `top1_agreement`."""
        found = {"probe_fvu": evaluate_sae(sae, (s.x.flatten(0, 1) for s in self._states)).fvu}
        if self._head is not None:
            rebuilt = self._cosines([sae(s.x.to(sae.W_dec.dtype)).to(s.x.dtype) for s in self._states])
            judged = faithfulness(self._original, rebuilt, self._zeroed, self._labels, self._head.logit_scale)
            found |= {"ce_recovered": judged.ce_recovered, "top1_agreement": judged.top1_agreement}
        return found

    def _cosines(self, xs: list[Tensor]) -> NDArray[np.float64]:
        if self._head is None:
            return np.empty((0, 0))
        embeddings = [
            self._tower.suffix(HookState(x, s.carry)) for x, s in zip(xs, self._states, strict=True)
        ]
        return np.concatenate([self._head.cosines(e).double().cpu().numpy() for e in embeddings])


class Watching(Protocol):
    """What hears of a training, and may end it by raising."""

    def activations(self, n_tokens: int) -> None:
        """So many more were read; nothing is trained meanwhile."""
        ...

    def step(self, n_steps: int, n_steps_in_all: int) -> bool | None:
        """After each step; False ends the training with a checkpoint."""
        ...

    def saved(self) -> None:
        """A checkpoint was written on the way."""
        ...

    def point(self, values: dict[str, float]) -> None:
        """Of the curves."""
        ...

    def note(self, text: str) -> None:
        """Words for people."""
        ...


@tells_full_memory
def run_training(
    training: Training,
    head: ZeroShotHead | None,
    folder: Path,
    watching: Watching,
    checkpoint_every_s: float = 60.0,
    activations: Path | None = None,
    activations_bytes: int = 0,
    ranks: Ranks = ALONE,
) -> bytes:
    """Trains, or goes on from the checkpoint in `folder`: the weights' file, with configuration and curves in its
    header; the same bytes for the same question, asked of as many processes and threads. Under `activations` rows of up
    to `activations_bytes` are kept for the next epoch and the next training. What comes of a training that `watching`
    ended is of no use.

    Of several processes (`ranks`) the first alone asks `watching`, needs `head`, writes checkpoints, and returns what
    the others lack: the curves' answers of the model.

    Raises UnreadableImage, ComputationFailed, CorruptCheckpoint, OutOfMemory.
    """
    config, division = training.config, training.division
    given = training.loaded, training.hook_point, training.dataset, division.trained_on, config.seed
    source = training_activations(*given, ranks, activations, activations_bytes)
    probing = None
    if ranks.is_first:
        source = _Watched(source, watching)
        every = config.metrics_every * max(1, config.n_steps // (_N_PROBES * config.metrics_every))
        probing = Probing(_probe(training, head, watching), every)

    def on_progress(at: TrainProgress) -> None:
        watching.point(_point(at))

    sae, report = train_sae(
        config,
        source,
        on_progress,
        folder,
        checkpoint_every_s,
        on_step=watching.step,
        on_saved=watching.saved,
        probing=probing,
        ranks=ranks,
    )
    cfg, _ = sae_files(sae)
    header = {
        "cfg": json.loads(cfg),
        "tokens": report.tokens,
        "stopped_early": report.stopped_early,
        "curves": [{k: v for k, v in _point(p).items() if k not in _TIMES} for p in report.history],
    }
    _, weights = sae_files(sae, header={_HEADER: json.dumps(header, sort_keys=True)})
    return weights


def _probe(training: Training, head: ZeroShotHead | None, watching: Watching) -> Probe:
    judged = training.division.judged
    try:
        return Probe(training, judged[:: max(1, len(judged) // _PROBED)][:_PROBED], head)
    except ComputationFailed as error:
        watching.note(f"the curves show no cross entropy: {error}")
        return Probe(training, judged[:_PROBED], None)


def header_of(weights: Path) -> dict[str, Any]:
    """What `run_training` wrote into the header: `cfg`, `tokens`, `stopped_early`, `curves`. Raises CorruptArtifact."""
    with safe_open(weights, framework="np") as file:
        found = (file.metadata() or {}).get(_HEADER)
    if found is None:
        raise CorruptArtifact(f"{weights.name} is no SAE that a training wrote")
    header: dict[str, Any] = json.loads(found)
    return header


@tells_full_memory
def judge(
    training: Training, sae: Sae, head: ZeroShotHead | None, on_images: Callable[[int, int], None]
) -> QualityCard:
    """Its card, beside that of an untrained twin. Raises ComputationFailed."""
    sae = sae.to(training.loaded.device)
    given = training.loaded, sae, training.dataset, training.division.judged
    try:
        return quality_card(*given, head, on_images)
    except ComputationFailed:
        if head is None:
            raise
        return quality_card(*given, None, on_images)  # the answers do not depend on the hook point


def _point(at: TrainProgress) -> dict[str, float]:
    values = {name: float(value) for name, value in vars(at).items() if name not in ("probed", "n_steps")}
    return values | at.probed


class _Watched:
    """A source that says how much was read."""

    def __init__(self, source: ActivationSource, watching: Watching) -> None:
        self.d_in, self.n_tokens = source.d_in, source.n_tokens
        self._source, self._watching = source, watching

    def read(self, start: int) -> Iterator[Tensor]:
        """The source's chunks."""
        for chunk in self._source.read(start):
            self._watching.activations(chunk.shape[0])
            yield chunk


def _task_of(dataset: Dataset, judged: Numbers) -> ClassSet | None:
    labelled = all(dataset.samples[int(n)].label is not None for n in judged)
    return ClassSet(dataset.class_names) if labelled and len(dataset.class_names) > 1 else None
