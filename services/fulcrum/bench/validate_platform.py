"""Dataset-wide validation as a person asks for it: over HTTP, as a job of a worker, against a plain loop.

The plain loop is what a script without Fulcrum does: it decodes every image once, runs the bare model on it, runs it
again with the edit, and compares, in full batches in this process while the platform waits.
The platform's side is wall time from the question until its verdict can be read: queueing, affected images, noise
floor, ripple, statistics, report and tables. Import and index, which a lab pays once, are timed by themselves.
"""

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fulcrum.bench.asking import finished
from fulcrum.bench.measure import environment
from fulcrum.bench.validate import DEPTHS, GAINS, N_CONTROLS, SHARES, Tell, sae_of
from fulcrum.client import Client
from fulcrum.datasets.formats import load_dataset
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import ComputationFailed, InvalidSettings
from fulcrum.domain.jobs import JobRecord
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import CorrectionRecord, DatasetRecord, ModelRecord, SaeRecord
from fulcrum.domain.tasks import ClassSet
from fulcrum.engine.dataset_runs import DatasetRun, embeddings_of, prefix_of
from fulcrum.engine.image_batches import image_batches
from fulcrum.engine.indexing import open_or_build_index
from fulcrum.engine.residency import Residency
from fulcrum.science.steering.edits import EditPlan, apply_edits

SPLIT: Literal["select"] = "select"


class Served(Protocol):
    """What the bench needs of a running platform."""

    client: Client

    def colleague(self) -> Client:
        """A client of another person of the same project."""
        ...


def bench_validate_platform(
    served: Served,
    served_ref: ModelRef,
    served_sae: str,
    source: str,
    ref: ModelRef,
    sae: str,
    task: ClassSet,
    manifest: Path,
    scratch: Path,
    threads: int,
    tell: Tell = lambda text: None,
    depths: Sequence[str] = DEPTHS,
) -> dict[str, Any]:
    """One JSON object; all ratios are of wall seconds of one run on the same number of threads.

    * `single_<share>_<depth>`: plain loop over the job of a validation with the same answers.
    * `again_<depth>`: plain loop over a colleague's identical question, until its report is there.
    * `sweep_controls_<depth>`: as many corrected passes as the job's answers stand for (11 gains on all images,
      100 controls on those that the job drew) at the time of the measured one, over the job.

    `served_ref`, `served_sae` and `source` name model, SAE and data set to the platform; `ref`, `sae` and `manifest`
    the same things to this process. Raises ComputationFailed when a job fails or the sides disagree.
    """
    torch.set_num_threads(threads)
    unknown = sorted(set(depths) - set(DEPTHS))
    if unknown:
        raise InvalidSettings(f"depths {unknown} are none of {list(DEPTHS)}")
    dataset = load_dataset(manifest)
    residency = Residency("cpu")
    client = served.client
    model = client.models.wait(client.models.create("demo CLIP", served_ref))
    record = client.datasets.create("bench")
    seconds: dict[str, Any] = {}
    seconds["import"] = _timed(client, client.datasets.import_images(record, source, format="manifest"))
    record = client.datasets.get(record)
    tell(f"imported {len(dataset)} images in {seconds['import']:.0f} s")
    ratios: dict[str, Any] = {}
    cases: dict[str, Any] = {}
    colleague = served.colleague()
    for depth in depths:
        steerable = residency.steerable(ref, sae_of(depth, sae))
        index = open_or_build_index(steerable, dataset, scratch / depth)
        known = client.saes.wait(client.saes.create(depth, model, sae_of(depth, served_sae)))
        seconds[f"index_{depth}"] = _timed(client, client.latents.index(record, known))
        tell(f"{depth}: indexed in {seconds[f'index_{depth}']:.0f} s")
        rates = np.asarray(index.statistics.image_rate)
        run = DatasetRun(steerable, residency.head(ref, task), task, dataset, index, states_budget_bytes=0)
        _Naive(run, EditPlan((Scale(0, 0.0),)), 64)  # warm-up
        # The worker imports and loads what it needs for its first validation; the loop is warm too.
        first = int(np.argmin(np.abs(rates - SHARES["2pct"])))
        warm = _saved(client, f"warm-up at {depth}", first, model, known, gain=0.5)
        _job(client, warm, record, task)
        for share, wanted in SHARES.items():
            key = f"{share}_{depth}"
            latent = int(np.argmin(np.abs(rates - wanted)))
            saved = _saved(client, f"suppress {latent} at {depth}, {share}", latent, model, known)
            naive = _Naive(run, EditPlan((Scale(latent, 0.0),)))
            case = _job(client, saved, record, task)
            _compare(case.pop("answers"), naive, dataset)
            cases[key] = case | {"latent": latent, "firing_share": float(rates[latent])}
            seconds |= {f"loop_{key}": naive.seconds, f"job_{key}": case["seconds"]}
            ratios[f"single_{key}"] = naive.seconds / case["seconds"]
            tell(
                f"single_{key}: {ratios[f'single_{key}']:.1f}x at {rates[latent]:.1%} of the images "
                f"({naive.seconds:.1f} s against {case['seconds']:.2f} s)"
            )
            if share == "2pct":
                again = _job(colleague, saved, record, task)
                _compare(again.pop("answers"), naive, dataset)
                if again["evaluation_id"] != case["evaluation_id"]:
                    raise ComputationFailed("a colleague's identical question was computed a second time")
                seconds[f"again_{depth}"] = again["seconds"]
                ratios[f"again_{depth}"] = naive.seconds / again["seconds"]
                swept = _sweep(client, saved, record, task)
                n_passes = len(GAINS) * len(dataset) + N_CONTROLS * swept["n_controlled"]
                loop_s = naive.corrected_seconds * n_passes / len(dataset)
                seconds |= {f"sweep_{depth}": swept["seconds"], f"sweep_loop_{depth}": loop_s}
                ratios[f"sweep_controls_{depth}"] = loop_s / swept["seconds"]
                cases[f"sweep_{depth}"] = swept
                tell(
                    f"again_{depth}: {ratios[f'again_{depth}']:.0f}x; sweep_controls_{depth}: "
                    f"{ratios[f'sweep_controls_{depth}']:.0f}x in {swept['seconds']:.1f} s"
                )
    ratios["predictions_equal"] = True  # anything else was raised
    return {
        "benchmark": "validate",
        "measured": "wall seconds of jobs of a running platform, asked for over HTTP, against a loop in this process",
        "model": ref.model_name.rpartition("/")[2],
        "n_images": len(dataset),
        "ratios": ratios,
        "seconds": seconds,
        "cases": cases,
        **environment(threads, "cpu"),
    }


class _Naive:
    """A plain loop over all images: both predictions, wall seconds, those of the corrected pass without decoding."""

    def __init__(self, run: DatasetRun, plan: EditPlan, n: int | None = None) -> None:
        numbers = np.arange(len(run.dataset) if n is None else n, dtype=np.int64)
        steerable = run.steerable
        base, corrected = [], []
        self.seconds = self.corrected_seconds = 0.0
        began = time.perf_counter()
        for batch in image_batches(steerable.loaded, run.dataset, numbers):
            with torch.no_grad():
                unedited = steerable.loaded.model.encode_image(batch.pixels)[: len(batch.numbers)]
                base.append(run.logits_of(unedited))
                halfway = time.perf_counter()
                state = prefix_of(steerable, batch)
                edited = apply_edits(
                    steerable.tower,
                    steerable.sae,
                    state.x,
                    [plan] * len(batch.numbers),
                    logits=run.head.logits(unedited),
                    readout=run.head,
                )
                corrected.append(run.logits_of(embeddings_of(steerable, state.with_x(edited.x))))
                self.corrected_seconds += time.perf_counter() - halfway
        self.seconds = time.perf_counter() - began
        self.base, self.corrected = (np.concatenate(x).argmax(axis=1) for x in (base, corrected))


def _saved(
    client: Client, name: str, latent: int, model: ModelRecord, sae: SaeRecord, gain: float = 0.0
) -> CorrectionRecord:
    assert model.info is not None  # waited for
    assert sae.info is not None
    correction = Correction(
        model.info.weights_sha256,
        sae.info.weights_sha256,
        str(sae.info.hook_point),
        (Scale(latent, gain),),
    )
    return client.corrections.create(name, correction, sae=sae)


def _timed(client: Client, job: JobRecord) -> float:
    """Wall seconds from now until the job has ended."""
    began = time.perf_counter()
    finished(client, job)
    return time.perf_counter() - began


def _job(client: Client, saved: CorrectionRecord, data: DatasetRecord, task: ClassSet) -> dict[str, Any]:
    """A validation without controls and its answers, read from the table that everybody can take home."""
    began = time.perf_counter()
    asked = client.evaluations.validate(
        saved, data, split=SPLIT, task=task, n_controls=0, specification={"min_controls": 0}
    )
    result = finished(client, asked).result
    assert result is not None  # it succeeded
    client.evaluations.get(result["evaluation_id"])
    seconds = time.perf_counter() - began
    table = client.evaluations.table(result["evaluation_id"])
    return {
        "seconds": seconds,
        "evaluation_id": result["evaluation_id"],
        "verdict": result["verdict"],
        "n_affected": result["n_affected"],
        "fixed": result["fixed"],
        "broken": result["broken"],
        "answers": _answers(table),
    }


def _sweep(client: Client, saved: CorrectionRecord, data: DatasetRecord, task: ClassSet) -> dict[str, Any]:
    began = time.perf_counter()
    asked = client.evaluations.sweep(saved, data, GAINS, split=SPLIT, n_controls=N_CONTROLS, task=task)
    result = finished(client, asked).result
    assert result is not None  # it succeeded
    report = client.evaluations.get(result["evaluation_id"]).report
    return {
        "seconds": time.perf_counter() - began,
        "n_gains": len(report["gains"]),
        "n_controls": len(report["controls"]),
        "n_controlled": int(report["n_control_images"]),
    }


def _answers(table: bytes) -> dict[str, tuple[int, int]]:
    """Base and corrected prediction by id."""
    import pyarrow.parquet as pq

    rows = pq.read_table(io.BytesIO(table), columns=["id", "base_prediction", "corrected_prediction"])
    columns = [rows.column(name).to_pylist() for name in rows.column_names]
    return {i: (b, c) for i, b, c in zip(*columns, strict=True)}


def _compare(answers: dict[str, tuple[int, int]], naive: _Naive, dataset: Dataset) -> None:
    """Raises ComputationFailed unless the job answered every image as the plain loop does."""
    ids: NDArray[Any] = dataset.ids
    if len(answers) != len(ids):
        raise ComputationFailed(f"the job's table has {len(answers)} images, the data set {len(ids)}")
    expected = zip(ids.tolist(), naive.base.tolist(), naive.corrected.tolist(), strict=True)
    differ = [i for i, base, corrected in expected if answers[str(i)] != (base, corrected)]
    if differ:
        raise ComputationFailed(
            f"{len(differ)} of {len(ids)} images are answered otherwise than by the plain loop, {differ[0]} first"
        )
