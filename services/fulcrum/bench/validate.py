"""Dataset-wide validation: affected images only, against a full re-run of the same correction."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fulcrum.bench.measure import environment, interleaved, ratio
from fulcrum.datasets.formats import load_dataset
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import ComputationFailed, InvalidSettings
from fulcrum.domain.models import ModelRef
from fulcrum.domain.tasks import ClassSet
from fulcrum.engine.dataset_runs import DatasetRun
from fulcrum.engine.indexing import open_or_build_index
from fulcrum.engine.residency import Residency
from fulcrum.science.steering.edits import EditPlan

_FIRING_SHARE = 0.02


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
) -> dict[str, Any]:
    """`single_2pct`: the naive run of every image over the affected-only run, both with decoding and the SAE.

    The base answers are known to both (the naive side is charged one steered pass over all images, no base
    pass). No activation is kept between rounds. Raises ComputationFailed when the two disagree.
    """
    torch.set_num_threads(threads)
    residency = Residency(device)
    dataset = load_dataset(manifest)
    if len(dataset) < n_images:
        raise InvalidSettings(f"the data set has {len(dataset)} images, {n_images} were asked for")
    dataset = dataset.subset(np.arange(n_images))
    steerable = residency.steerable(ref, sae)
    index = open_or_build_index(steerable, dataset, index_folder)
    run = DatasetRun(steerable, residency.head(ref, task), task, dataset, index, states_budget_bytes=0)
    numbers = np.arange(len(dataset), dtype=np.int64)
    rates = np.asarray(index.statistics.image_rate)
    latent = int(np.argmin(np.abs(rates - _FIRING_SHARE)))
    plan = EditPlan((Scale(latent, 0.0),))

    fast = run.corrected_logits(plan, numbers)
    base, slow = run.naive_logits(plan, numbers)
    difference = float(np.abs(fast - slow).max())
    equal = bool((fast.argmax(axis=1) == slow.argmax(axis=1)).all())
    if not equal or difference > 1e-4:
        raise ComputationFailed(
            f"affected-only and naive logits differ by {difference:g}; predictions equal: {equal}"
        )
    results = interleaved(
        {
            "naive": lambda: run.naive_logits(plan, numbers, base=False),
            "affected_only": lambda: run.corrected_logits(plan, numbers),
        },
        rounds,
    )
    affected = run.affected(plan, numbers)
    return {
        "benchmark": "validate",
        "model": ref.model_name.rpartition("/")[2],
        "hook_point": str(steerable.tower.hook_point),
        "n_images": len(dataset),
        "latent": latent,
        "n_affected": len(affected),
        "affected_share": len(affected) / len(dataset),
        "n_predictions_changed": int((slow.argmax(axis=1) != base.argmax(axis=1)).sum()),
        "ratios": {
            "single_2pct": ratio(results, "naive", "affected_only", device),
            "predictions_equal": equal,
        },
        "largest_logit_difference": difference,
        "index_bytes_per_image": index.bytes_per_image["total"],
        "contenders": results,
        **environment(threads, device),
    }
