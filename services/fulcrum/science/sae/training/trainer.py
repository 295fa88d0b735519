"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fulcrum.domain.errors import ComputationFailed, InvalidSaeConfig
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.folding import fold_normalisation
from fulcrum.science.sae.training.checkpoint import read_checkpoint, write_checkpoint
from fulcrum.science.sae.training.config import (
    Probing,
    ProgressCallback,
    StepCallback,
    TrainConfig,
    TrainProgress,
    TrainReport,
)
from fulcrum.science.sae.training.flatness import Flatness
from fulcrum.science.sae.training.initialise import set_initial_weights, set_normalisation
from fulcrum.science.sae.training.ranks import ALONE, Ranks
from fulcrum.science.sae.training.source import ActivationSource, ShuffledBlocks
from fulcrum.science.sae.training.step import StepResult
from fulcrum.science.sae.training.update import Updater
from fulcrum.science.sae.variants import build_sae


def train_sae(
    config: TrainConfig,
    activations: ActivationSource,
    on_progress: ProgressCallback | None = None,
    checkpoint_folder: Path | None = None,
    checkpoint_every_s: float = 60.0,
    *,
    on_step: StepCallback | None = None,
    on_saved: Callable[[], None] | None = None,
    probing: Probing | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Sae, TrainReport]:
    """A trained SAE, its normalisation folded into the weights, and what the run did.

    Same configuration, activations and thread count give the same numbers, also when the run was interrupted
    and resumed from `checkpoint_folder`. `on_progress` is called every `metrics_every` steps and at the end;
    when it, or `on_step`, returns False the run stops after writing its checkpoint, and the report says
    `completed=False`. `on_saved` hears of each checkpoint on the way.

    Several processes (`ranks`) share the rows of each batch; they read the same activations (`SharedSource`), and
    the first alone hears callbacks and writes checkpoints, which any number of processes can go on from.

    Raises InvalidSaeConfig for configurations and shapes that cannot be meant, ComputationFailed for
    activations or weights that are not finite, CorruptCheckpoint for a checkpoint of another run.
    """
    run = _Run(config, activations, checkpoint_folder, checkpoint_every_s, ranks)
    return run.train(on_progress, on_step, on_saved, probing)


class _Run:
    """State of one run between steps."""

    def __init__(
        self,
        config: TrainConfig,
        source: ActivationSource,
        checkpoint_folder: Path | None,
        checkpoint_every_s: float,
        ranks: Ranks,
    ) -> None:
        if source.d_in != config.d_in:
            raise InvalidSaeConfig(
                f"activations have d_in={source.d_in}, the configuration says {config.d_in}"
            )
        if source.n_tokens < config.batch_size:
            raise InvalidSaeConfig(
                f"{source.n_tokens} tokens of activations are fewer than one batch of {config.batch_size}"
            )
        if config.batch_size % ranks.size:
            raise InvalidSaeConfig(
                f"batch_size={config.batch_size} cannot be shared by {ranks.size} processes: it must be a multiple"
            )
        self.config, self.ranks = config, ranks
        self.device = torch.device(config.device)
        self.folder, self.checkpoint_every_s = checkpoint_folder, checkpoint_every_s
        self.batches_per_block = max(1, min(config.buffer_tokens, source.n_tokens) // config.batch_size)
        dtype = torch.float16 if config.buffer_dtype == "float16" else torch.float32
        self.blocks = ShuffledBlocks(
            source, self.batches_per_block * config.batch_size, config.seed, dtype, self.device
        )
        self.sae = build_sae(config.sae_config()).to(self.device).requires_grad_(False)
        self.waiting_s = self.earlier_s = self.earlier_cpu_s = 0.0
        self.history: list[TrainProgress] = []
        self.flatness = Flatness(config)
        restored = read_checkpoint(checkpoint_folder, config) if checkpoint_folder is not None else None
        if restored is None:
            block = self.blocks.block(0)
            self.variance = set_normalisation(self.sae, block, config.subtract_mean, config.rescale)
            set_initial_weights(self.sae, block, config)
            self.updater = Updater(self.sae, config, ranks)
        else:
            self.updater = Updater(self.sae, config, ranks)
            self._restore(*restored)

    def train(
        self,
        on_progress: ProgressCallback | None,
        on_step: StepCallback | None,
        on_saved: Callable[[], None] | None,
        probing: Probing | None,
    ) -> tuple[Sae, TrainReport]:
        """Runs to the end or until one of them says stop."""
        config, updater, ranks = self.config, self.updater, self.ranks
        if not ranks.is_first:
            on_progress = on_step = probing = None
        n_rows = config.batch_size // ranks.size
        mine = slice(ranks.rank * n_rows, (ranks.rank + 1) * n_rows)
        started, cpu_started = time.perf_counter(), time.process_time()
        first_step, last_saved = updater.n_steps, time.perf_counter()
        go_on = True
        checkpoint: Path | None = None
        for batch in self._batches():
            u = self.sae.normalise(batch[mine].float())
            rate = updater.learning_rate
            result = updater.update(u)
            if config.early_stop:
                loss = result.loss
                ranks.mean_([loss])
                if self.flatness.add(updater.n_steps, loss):
                    updater.end = min(
                        updater.end, updater.n_steps + round(config.n_steps * config.decay_share)
                    )
            ended = updater.n_steps == updater.end
            if ended or updater.n_steps % config.metrics_every == 0:
                seconds = time.perf_counter() - started
                probed = probing is not None and (ended or updater.n_steps % probing.every == 0)
                found = probing.measure(self._copy()) if probing is not None and probed else {}
                progress = self._progress(u, result, rate, updater.n_steps - first_step, seconds, found)
                self.history.append(progress)
                go_on = on_progress is None or on_progress(progress) is not False
            if on_step is not None and on_step(updater.n_steps, updater.end) is False:
                go_on = False
            go_on = ranks.all_agree(go_on)
            due = time.perf_counter() - last_saved >= self.checkpoint_every_s
            if self.folder is not None and ranks.is_first and (due or ended or not go_on):
                self.earlier_s += time.perf_counter() - started
                self.earlier_cpu_s += time.process_time() - cpu_started
                started, cpu_started, first_step = time.perf_counter(), time.process_time(), updater.n_steps
                checkpoint = self._save(self.folder)
                last_saved = time.perf_counter()
                if on_saved is not None and go_on and not ended:
                    on_saved()
            if not go_on:
                break
        updater.export(self.sae)
        report = TrainReport(
            completed=updater.n_steps == updater.end,
            stopped_early=updater.n_steps == updater.end < config.n_steps,
            steps=updater.n_steps,
            tokens=updater.n_steps * config.batch_size,
            seconds=self.earlier_s + time.perf_counter() - started,
            cpu_seconds=self.earlier_cpu_s + time.process_time() - cpu_started,
            waiting_seconds=self.waiting_s,
            history=self.history,
            checkpoint=checkpoint,
        )
        return fold_normalisation(self.sae).eval(), report

    def _batches(self) -> Iterator[Tensor]:
        """Batches from the current step on."""
        while self.updater.n_steps < self.updater.end:
            index, first = divmod(self.updater.n_steps, self.batches_per_block)
            asked = time.perf_counter()
            block = self.blocks.block(index)
            self.waiting_s += time.perf_counter() - asked
            for batch in torch.split(block, self.config.batch_size)[first : self.batches_per_block]:
                if self.updater.n_steps < self.updater.end:  # which may come nearer at any step
                    yield batch

    def _progress(
        self,
        u: Tensor,
        result: StepResult,
        rate: float,
        steps_here: int,
        seconds: float,
        probed: dict[str, float],
    ) -> TrainProgress:
        n, step = u.shape[0], self.updater.n_steps
        squares = result.residual.square().sum(dtype=torch.float64) / n
        cosine = torch.cosine_similarity(u + result.residual, u, dim=1).mean().double()
        means = torch.stack([squares, result.n_active.double() / n, cosine, result.loss.double()])
        self.ranks.mean_([means])
        square, l0, cosine_mean, loss = means.tolist()
        fvu = square / self.variance
        if not math.isfinite(fvu):
            raise ComputationFailed(
                f"training diverged at step {step}: the reconstruction is {fvu} at learning_rate={rate:g}"
            )
        tokens_per_s = steps_here * self.config.batch_size / seconds if seconds > 0 else 0.0
        left = (self.updater.end - step) * self.config.batch_size
        return TrainProgress(
            step=step,
            n_steps=self.updater.end,
            tokens=step * self.config.batch_size,
            fvu=fvu,
            l0=l0,
            dead_share=self.updater.dead_share,
            cosine=cosine_mean,
            learning_rate=rate,
            tokens_per_s=tokens_per_s,
            eta_s=left / tokens_per_s if tokens_per_s > 0 else 0.0,
            loss=loss,
            probed=probed,
        )

    def _copy(self) -> Sae:
        """The SAE as it stands, as it would be returned."""
        made = build_sae(self.config.sae_config()).to(self.device).requires_grad_(False)
        made.load_state_dict(self.sae.state_dict())
        self.updater.export(made)
        return fold_normalisation(made).eval()

    def _save(self, folder: Path) -> Path:
        tensors = {"norm_mean": self.sae.norm_mean, "norm_scale": self.sae.norm_scale, **self.updater.state()}
        numbers: dict[str, Any] = {
            "step": self.updater.n_steps,
            "end": self.updater.end,
            "flatness": self.flatness.state(),
            "variance": self.variance,
            "seconds": self.earlier_s,
            "cpu_seconds": self.earlier_cpu_s,
            "waiting_seconds": self.waiting_s,
            "history": [vars(progress) for progress in self.history],
        }
        return write_checkpoint(folder, self.config, tensors, numbers)

    def _restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        self.variance = numbers["variance"]
        self.earlier_s, self.earlier_cpu_s = numbers["seconds"], numbers["cpu_seconds"]
        self.waiting_s = numbers["waiting_seconds"]
        self.history = [TrainProgress(**progress) for progress in numbers["history"]]
        self.sae.norm_mean.copy_(tensors["norm_mean"])
        self.sae.norm_scale.copy_(tensors["norm_scale"])
        self.updater.restore(tensors, numbers["step"])
        self.updater.end = numbers["end"]
        self.flatness.restore(numbers["flatness"])
