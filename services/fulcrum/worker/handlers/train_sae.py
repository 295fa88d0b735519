"""`train_sae`: one shard trains, since each step stands on the one before; the reduce judges and registers."""

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulcrum.domain.errors import Conflict, CorruptCheckpoint
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.identifiers import now
from fulcrum.domain.jobs import Shard, ShardResult, TrainSae
from fulcrum.domain.models import SaeInfo
from fulcrum.domain.records import SaeRecord
from fulcrum.worker.datasets import record_of
from fulcrum.worker.held import Draining
from fulcrum.worker.indexes import OpenDataset
from fulcrum.worker.ranks.lines import Question
from fulcrum.worker.ranks.together import train_together
from fulcrum.worker.work import Work

if TYPE_CHECKING:
    from fulcrum.engine.sae_training import Training
    from fulcrum.science.attribution.targets import ZeroShotHead
    from fulcrum.science.vision.loaded import LoadedModel

CHECKPOINT_EVERY_S = 60.0


class TrainSaeHandler:
    """An SAE of the project, from the activations of one of its data sets."""

    def __init__(self, open_dataset: OpenDataset, checkpoint_every_s: float = CHECKPOINT_EVERY_S) -> None:
        self._open_dataset, self._checkpoint_every_s = open_dataset, checkpoint_every_s

    def plan(self, work: Work) -> Sequence[Shard]:
        """The training, under the hash of all that determines it.

        Raises UnknownModel, UnknownDataset, InvalidDataset, InvalidHookPoint, InvalidSaeConfig, OutOfMemory.
        """
        training = self._opened(work)
        config, division = training.config, training.division
        judges = "others judge" if division.held_out else "the same judge, since there are so few"
        work.log(
            f"{config.variant} SAE of {config.d_sae} latents at {config.hook_point} (d_in {config.d_in}): "
            f"{config.n_steps} steps of {config.batch_size} tokens, from {len(division.trained_on)} images; "
            f"{len(division.judged)} {judges}"
        )
        return [Shard(training.key, {})]

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        """The weights' file. Raises UnreadableImage, ComputationFailed for a training that diverges, OutOfMemory, and
        Conflict where what it was planned for has changed.
        """
        training = self._opened(work)
        if training.key != shard.key:
            raise Conflict(
                f"the data set, the model or this worker's precision ({training.loaded.device.type}, "
                f"{training.loaded.info.dtype}) is no more what the training was planned for: start again"
            )
        telling = _Telling(work, training)
        folder = work.folder / shard.key[:16]
        n = _n_processes(work, training.loaded, training.config.batch_size)
        if (wanted := work.training_processes.wanted) > 1:
            needs = f": each needs a GPU and an equal part of batch_size={training.config.batch_size}"
            work.log(f"{n} of {wanted} processes train{'' if n == wanted else needs}")
        run = self._run_alone if n == 1 else partial(self._run_together, n)
        try:
            weights = run(work, training, folder, telling)
        except CorruptCheckpoint:
            work.log("the checkpoint cannot be read: the training begins anew", "warning")
            shutil.rmtree(folder, ignore_errors=True)
            weights = run(work, training, folder, telling)
        if telling.drained is not None:
            raise telling.drained
        return weights

    def _run_alone(self, work: Work, training: "Training", folder: Path, telling: "_Telling") -> bytes:
        from fulcrum.engine.sae_training import run_training

        kept = work.cache / "activations", work.activations_bytes
        return run_training(training, _head(work, training), folder, telling, self._checkpoint_every_s, *kept)

    def _run_together(
        self, n: int, work: Work, training: "Training", folder: Path, telling: "_Telling"
    ) -> bytes:
        import torch

        spec, processes = _spec(work), work.training_processes
        record = record_of(work, spec.dataset_id)
        assert record.manifest_sha256 is not None  # it was opened
        loaded = training.loaded
        with tempfile.TemporaryDirectory(dir=work.folder) as meeting:
            first = Question(
                rank=0,
                size=n,
                key=training.key,
                spec=spec,
                model=work.model(spec.model_id),
                model_name=training.config.model_name,
                dataset_name=record.name,
                manifest_sha256=record.manifest_sha256,
                artifacts_url=processes.artifacts_url,
                artifacts_cache=str(processes.artifacts_cache),
                activations=str(work.cache / "activations"),
                activations_bytes=work.activations_bytes,
                checkpoints=str(folder),
                checkpoint_every_s=self._checkpoint_every_s,
                meeting=meeting,
                device=loaded.device.type,
                gpus=processes.gpus,
                dtype=str(loaded.dtype).removeprefix("torch."),
                n_threads=max(1, torch.get_num_threads() // n),
                log_level=logging.getLevelName(max(logging.DEBUG, logging.getLogger().getEffectiveLevel())),
            )
            questions = [replace(first, rank=rank) for rank in range(n)]
            weights = train_together(questions, telling, processes.program)
        if weights:  # it was at its end before it could be told to stop
            telling.drained = None
        return weights

    def reduce(self, work: Work, results: Sequence[ShardResult]) -> dict[str, Any]:
        """Judges the SAE on images that it has not seen, beside an untrained twin, and registers it, ready to be used.

        Raises UnknownDataset and UnknownModel for what was deleted meanwhile.
        """
        from fulcrum.engine.sae_training import header_of, judge
        from fulcrum.science.sae.storage import CONFIG_FILE, WEIGHTS_FILE, load_sae, sae_sha256

        spec, (result,) = _spec(work), results
        weights = work.artifacts.local_path(result.sha256)
        header = header_of(weights)
        training = self._opened(work)
        with tempfile.TemporaryDirectory(dir=work.folder) as name:
            folder = Path(name)
            (folder / CONFIG_FILE).write_text(json.dumps(header["cfg"]))
            (folder / WEIGHTS_FILE).symlink_to(weights.resolve())
            sae = load_sae(folder)
        card = judge(
            training,
            sae,
            _head(work, training),
            lambda done, total: work.progress("judging", done, total),
        ).flat()
        cfg = header["cfg"]
        cfg["metadata"]["fulcrum"] |= {"quality": card}
        kept = work.artifacts.put_bytes(json.dumps(cfg, indent=2, sort_keys=True).encode())
        config = sae.config
        info = SaeInfo(
            name=spec.name,
            weights_sha256=sae_sha256(sae),
            variant=config.variant,
            d_in=config.d_in,
            d_sae=config.d_sae,
            hook_point=HookPoint.parse(config.hook_point),
            model_name=config.model_name,
            quality=card,
        )
        record = SaeRecord(
            id=f"sae_{work.job.id.partition('_')[2]}",  # the same for each attempt
            project_id=work.job.project_id,
            name=spec.name,
            model_id=spec.model_id,
            source=f"artifact:{kept}:{result.sha256}",
            created_by=work.job.created_by,
            created_at=now(),
            state="ready",
            info=info,
            job_id=work.job.id,
        )
        record = _register(work, record)
        return {
            "sae_id": record.id,
            "name": record.name,
            "weights_sha256": info.weights_sha256,
            "hook_point": config.hook_point,
            "n_tokens": header["tokens"],
            "stopped_early": header["stopped_early"],
            "n_images": len(training.division.trained_on),
            "n_judged": len(training.division.judged),
            "held_out": training.division.held_out,
            "quality": card,
        }

    def _opened(self, work: Work) -> "Training":
        from fulcrum.engine.sae_training import plan_training

        spec = _spec(work)
        with work.store.read() as tx:
            model_name = tx.models.get(spec.model_id).ref.model_name
        loaded = work.engine.residency.model(work.model(spec.model_id))
        record_of(work, spec.dataset_id)  # it may have been deleted since, and opened before
        sharing = _n_processes(work, loaded, spec.batch_size) if loaded.device.type == "cpu" else 1
        return plan_training(loaded, self._open_dataset(work, spec.dataset_id), spec, model_name, sharing)


class _Telling:
    """Hands what a training says to its job."""

    def __init__(self, work: Work, training: "Training") -> None:
        self._work, self._config = work, training.config
        self._n_read, self._steps = 0, (0, training.config.n_steps)
        self.drained: Draining | None = None

    def activations(self, n_tokens: int) -> None:
        """Shown until the first step; later they are read between steps."""
        self._n_read += n_tokens
        if self._steps[0]:
            self._tell()
        else:
            first = min(self._config.buffer_tokens, self._config.n_tokens)
            self._work.progress("reading activations", min(self._n_read, first), first, "tokens")

    def step(self, n_steps: int, n_steps_in_all: int) -> bool | None:
        """Raises what ends the job; a worker that stops leaves a checkpoint first."""
        self._steps = n_steps, n_steps_in_all
        try:
            self._tell()
        except Draining as drained:
            if n_steps < n_steps_in_all:
                self.drained = drained
                return False
        return None

    def saved(self) -> None:
        """A checkpoint was written, further on than that from which this attempt began."""
        self._work.kept()

    def point(self, values: dict[str, float]) -> None:
        """Of the curves."""
        self._work.metric(values)

    def note(self, text: str) -> None:
        """A warning."""
        self._work.log(text, "warning")

    def _tell(self) -> None:
        done, total = self._steps
        size = self._config.batch_size
        self._work.progress("training", done * size, total * size, "tokens")


def _n_processes(work: Work, loaded: "LoadedModel", batch_size: int) -> int:
    return work.training_processes.number(loaded.device, batch_size)


def _head(work: Work, training: "Training") -> "ZeroShotHead | None":
    if training.task is None:
        return None
    return work.engine.residency.head(work.model(_spec(work).model_id), training.task)


def _register(work: Work, record: SaeRecord) -> SaeRecord:
    """The record, made once; another name where somebody has taken its own: hours of work must not be lost to that."""
    name = record.name
    with work.store.write() as tx:
        known = tx.saes.find(record.id)
        if known is not None:
            return known
        tx.models.get(record.model_id)
        n = 1
        while tx.saes.named(record.project_id, record.name) is not None:
            n += 1
            record = replace(record, name=f"{name} ({n})")
        tx.saes.add(record)
        tx.audit.append(
            record.created_by, "sae.train", record.id, {"name": record.name, "source": record.source}
        )
    if record.name != name:
        work.log(f"the name {name!r} was taken meanwhile: the SAE is {record.name!r}", "warning")
    return record


def _spec(work: Work) -> TrainSae:
    spec = work.job.spec
    assert isinstance(spec, TrainSae)
    return spec
