"""Dataset-wide validation as a worker computes it, in parts, against a full re-run of every image.

Measured is the code that jobs run (`engine.validation_parts`, one process, nothing kept from an earlier question):
looking the affected images up, decoding them, prefix, suffix, and putting the answers of all images together. The
statistics after that (the same for both sides) and the index, which a lab builds once, are timed by themselves.
"""

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fulcrum.bench.measure import environment, spread
from fulcrum.datasets.formats import load_dataset
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import ComputationFailed, InvalidSettings
from fulcrum.domain.models import ModelRef
from fulcrum.domain.tasks import ClassSet
from fulcrum.engine.dataset_controls import matched_latent_plans, predictions_of_plans
from fulcrum.engine.dataset_runs import DatasetRun, Logits, embeddings_of
from fulcrum.engine.indexing import open_or_build_index
from fulcrum.engine.residency import Residency
from fulcrum.engine.validating import Question, assemble, plan_validation
from fulcrum.engine.validation_parts import part_key, run_part
from fulcrum.science.steering.edits import EditPlan
from fulcrum.science.validation.report import validate
from fulcrum.science.validation.specification import Specification

SHARES = {"2pct": 0.02, "20pct": 0.2, "100pct": 1.0}
GAINS = (0.0, 0.25, 0.5, 0.75, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
N_CONTROLS = 100
# Controls that are also run naively, on the first images, to compare their answers.
_COMPARED_CONTROLS, _COMPARED_IMAGES = 2, 256
_BLOCKS = {"early": 0, "late": 4}
DEPTHS = ("mid", *_BLOCKS)

Tell = Callable[[str], None]


def bench_validate(
    ref: ModelRef,
    sae: str,
    task: ClassSet,
    manifest: Path,
    n_images: int,
    index_folder: Path,
    rounds: int,
    threads: int,
    device: str,
    tell: Tell = lambda text: None,
    depths: Sequence[str] = DEPTHS,
) -> dict[str, Any]:
    """`single_<share>_<depth>`: base and corrected run of every image over the affected-only answers of all of them.

    `sweep_controls_<depth>`: 11 gains and 100 matched controls on all images, over 111 corrected passes at the time
    of one (measured, not run 111 times). Ratios are of CPU seconds on a CPU, of wall seconds elsewhere; both stand in
    `contenders`. Raises ComputationFailed when the two sides disagree.
    """
    torch.set_num_threads(threads)
    residency = Residency(device)
    dataset = load_dataset(manifest)
    if len(dataset) < n_images:
        raise InvalidSettings(f"the data set has {len(dataset)} images, {n_images} were asked for")
    dataset = dataset.subset(np.arange(n_images))
    unknown = sorted(set(depths) - set(DEPTHS))
    if unknown:
        raise InvalidSettings(f"depths {unknown} are none of {list(DEPTHS)}")
    ratios: dict[str, Any] = {}
    contenders: dict[str, Any] = {}
    cases: dict[str, Any] = {}
    largest = 0.0
    for depth in depths:
        steerable = residency.steerable(ref, sae_of(depth, sae))
        clock = _Clock()
        index = open_or_build_index(steerable, dataset, index_folder)
        contenders[f"index_{depth}"] = clock.spread()
        tell(f"{depth}: indexed {n_images} images at {steerable.tower.hook_point}")

        def fresh(steerable: Any = steerable, index: Any = index, **options: Any) -> DatasetRun:
            return DatasetRun(steerable, residency.head(ref, task), task, dataset, index, **options)

        rates = np.asarray(index.statistics.image_rate)
        for share, wanted in SHARES.items():
            latent = int(np.argmin(np.abs(rates - wanted)))
            case = _single(fresh, latent, rounds)
            key = f"{share}_{depth}"
            contenders |= {f"naive_{key}": case.pop("naive"), f"parts_{key}": case.pop("parts")}
            ratios[f"single_{key}"] = _ratio(contenders, f"naive_{key}", f"parts_{key}", device)
            largest = max(largest, case["largest_logit_difference"])
            cases[key] = case | {"firing_share": float(rates[latent])}
            tell(f"single_{key}: {ratios[f'single_{key}']:.1f}x at {rates[latent]:.1%} of the images")
        swept = _sweep(fresh, int(np.argmin(np.abs(rates - SHARES["2pct"]))))
        contenders[f"sweep_{depth}"] = swept.pop("seconds")
        n_passes = len(GAINS) + N_CONTROLS
        one = _seconds(contenders[f"naive_2pct_{depth}"]["corrected_only"], device)
        ratios[f"sweep_controls_{depth}"] = n_passes * one / _seconds(contenders[f"sweep_{depth}"], device)
        cases[f"sweep_{depth}"] = swept
        tell(f"sweep_controls_{depth}: {ratios[f'sweep_controls_{depth}']:.1f}x")
    ratios["predictions_equal"] = True  # anything else was raised
    return {
        "benchmark": "validate",
        "measured": "the code of the jobs in one process, without broker, database and artifacts",
        "model": ref.model_name.rpartition("/")[2],
        "n_images": n_images,
        "ratios": ratios,
        "largest_logit_difference": largest,
        "cases": cases,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "contenders": contenders,
        **environment(threads, device),
    }


def sae_of(depth: str, mid: str) -> str:
    """The SAE that is measured at a depth: `mid` in the middle, untrained ones at an early and a late block."""
    return mid if depth == "mid" else f"untrained:topk:2048:16@visual.blocks.{_BLOCKS[depth]}.resid_post"


class _Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - self._wall, time.process_time() - self._cpu

    def spread(self) -> dict[str, Any]:
        return _spread([self.read()])


def _spread(times: Sequence[tuple[float, float]]) -> dict[str, Any]:
    return {"wall_s": spread([w for w, _ in times]), "cpu_s": spread([c for _, c in times])}


def _seconds(side: dict[str, Any], device: str) -> float:
    return float(side["cpu_s" if device == "cpu" else "wall_s"]["median"])


def _ratio(contenders: dict[str, Any], slow: str, fast: str, device: str) -> float:
    return _seconds(contenders[slow], device) / _seconds(contenders[fast], device)


def _question(run: DatasetRun, latent: int, gain: float, split: str) -> Question:
    info = run.steerable
    correction = Correction(
        info.loaded.info.weights_sha256,
        info.sae_info.weights_sha256,
        str(info.sae_info.hook_point),
        (Scale(latent, gain),),
    )
    return Question(correction, split, specification=Specification(min_controls=0), n_controls=0)  # type: ignore[arg-type]  # a split


def _answers(run: DatasetRun, plan: EditPlan) -> Logits:
    """Corrected logits of all images."""
    return run.corrected_logits(plan, np.arange(len(run.dataset), dtype=np.int64))


def _compare(fast: NDArray[Any], slow: NDArray[Any], what: str) -> float:
    difference = float(np.abs(fast - slow).max())
    if difference > 1e-4 or (fast.argmax(axis=1) != slow.argmax(axis=1)).any():
        raise ComputationFailed(f"{what}: affected-only and naive logits differ by up to {difference:g}")
    return difference


def _single(fresh: Callable[..., DatasetRun], latent: int, rounds: int) -> dict[str, Any]:
    plan = EditPlan((Scale(latent, 0.0),))
    numbers = np.arange(len(fresh().dataset), dtype=np.int64)
    naive_times, corrected_times, part_times = [], [], []
    difference = 0.0
    run = fresh(states_budget_bytes=0)
    _answers(run, plan)  # warm-up
    for _ in range(rounds):
        naive = fresh(states_budget_bytes=0)
        clock = _Clock()
        _, slow = naive.naive_logits(plan, numbers)
        naive_times.append(clock.read())
        clock = _Clock()
        naive.naive_logits(plan, numbers, base=False)
        corrected_times.append(clock.read())
        run = fresh(states_budget_bytes=0)
        clock = _Clock()
        fast = _answers(run, plan)
        part_times.append(clock.read())
        difference = max(difference, _compare(fast, slow, f"latent {latent}"))
    limit = _limit(fresh, run.affected(plan, numbers))
    parts = _spread(part_times)
    return {
        "naive": _spread(naive_times) | {"corrected_only": _spread(corrected_times)},
        "parts": parts,
        "latent": latent,
        "n_affected": run.counts.prefix_images,
        "n_suffix_rows": run.counts.suffix_rows,
        "n_predictions_changed": int((slow.argmax(axis=1) != run.base_logits.argmax(axis=1)).sum()),
        "largest_logit_difference": difference,
        # One suffix pass over the affected activations, were they kept: nothing can be faster.
        "limit_s": limit,
        "share_of_limit": limit / max(statistics.median(t[1] for t in part_times), 1e-9),
        "job": _job(fresh, latent),
    }


def _limit(fresh: Callable[..., DatasetRun], affected: NDArray[np.int64]) -> float:
    """CPU seconds of the suffix alone on the affected images (a sample of them, scaled up)."""
    run = fresh()
    sample = affected[:512]
    if not len(sample):
        return 0.0
    states = [state for _, state in run.states(sample)]
    clock = _Clock()
    for state in states:
        embeddings_of(run.steerable, state)
    return clock.read()[1] * len(affected) / len(sample)


def _job(fresh: Callable[..., DatasetRun], latent: int) -> dict[str, Any]:
    """CPU seconds of all stages of a validation without controls on one split, and of the same question again."""
    run = fresh()
    split = "confirm" if "confirm" in run.dataset.split_names else run.dataset.split_names[0]
    question = _question(run, latent, 0.0, split)
    clock = _Clock()
    planned = plan_validation(run, question)
    keys = [part_key(run, p) for p in planned.parts]
    plan_s = clock.read()[1]
    clock = _Clock()
    stored = dict(zip(keys, (run_part(run, p) for p in planned.parts), strict=True))
    parts_s = clock.read()[1]
    clock = _Clock()
    given = assemble(run, question, planned, [stored[k] for k in keys])
    assemble_s = clock.read()[1]
    clock = _Clock()
    validate(given, question.specification)
    judge_s = clock.read()[1]
    second = fresh()
    clock = _Clock()
    again = plan_validation(second, question)
    assemble(second, question, again, [stored[part_key(second, p)] for p in again.parts])
    return {
        "n_parts": len(keys),
        "plan_s": plan_s,
        "parts_s": parts_s,
        "assemble_s": assemble_s,
        "judge_s": judge_s,
        "again_s": clock.read()[1],
        "again_forward_images": second.counts.prefix_images + second.counts.suffix_rows,
        "stored_bytes": sum(len(b) for b in stored.values()),
    }


def _sweep(fresh: Callable[..., DatasetRun], latent: int) -> dict[str, Any]:
    run = fresh()
    numbers = np.arange(len(run.dataset), dtype=np.int64)
    plan = EditPlan((Scale(latent, 0.0),))
    clock = _Clock()
    logits = {gain: _answers(run, EditPlan((Scale(latent, gain),))) for gain in GAINS}
    controls = matched_latent_plans(run, plan, N_CONTROLS, 0)
    predicted = predictions_of_plans(run, controls, numbers)
    seconds = clock.spread()
    few = numbers[:_COMPARED_IMAGES]
    check = fresh(states_budget_bytes=0)
    for gain in (GAINS[0], GAINS[-1]):
        slow = check.naive_logits(EditPlan((Scale(latent, gain),)), few, base=False)[1]
        _compare(logits[gain][few], slow, f"gain {gain:g}")
    for i in range(min(_COMPARED_CONTROLS, len(controls))):
        slow = check.naive_logits(controls[i], few, base=False)[1].argmax(axis=1)
        if (predicted[i, few] != slow).any():
            raise ComputationFailed(f"control {i}: affected-only and naive predictions differ")
    return {
        "seconds": seconds,
        "n_gains": len(GAINS),
        "n_controls": len(controls),
        "n_prefix_images": run.counts.prefix_images,
        "n_suffix_rows": run.counts.suffix_rows,
    }
