"""Average precision of many units against sklearn's in a loop, dense and sparse."""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from fulcrum.bench.measure import environment, spread
from fulcrum.domain.errors import ComputationFailed
from fulcrum.science.experts.ap import average_precision, average_precisions
from fulcrum.science.experts.sparse_ap import SparseResponses, sparse_average_precision

_POSITIVE_SHARE = 0.2
_N_CONCEPTS = 5  # that share their negatives
_DENSITY = 0.02


def bench_experts(
    n_examples: int = 2000, n_units: int = 50_000, n_sklearn: int = 500, rounds: int = 3
) -> dict[str, Any]:
    """CPU seconds on one thread. sklearn runs `n_sklearn` of the units each round and is extrapolated.

    `vs_sklearn` is one concept from raw responses; `vs_sklearn_shared_negatives` one of five concepts with the same
    negatives. Raises ComputationFailed when an AP differs from sklearn's by more than 1e-12.
    """
    rng = np.random.default_rng(0)
    responses = rng.standard_normal((n_units, n_examples), dtype=np.float32)
    n_pos = round(_POSITIVE_SHARE * n_examples)
    shuffled = rng.permutation(n_examples)
    # Five times the same concept: each is sorted and counted by itself, only the negatives are sorted once.
    pool, negatives = shuffled[:n_pos], shuffled[n_pos:]
    labels = np.full((_N_CONCEPTS, n_examples), -1, dtype=np.int8)
    labels[:, negatives] = 0
    for row in labels:
        row[pool] = 1
    one = labels[0] == 1
    checked = rng.choice(n_units, size=min(n_sklearn, n_units), replace=False)
    scale = n_units / len(checked)
    oracle = np.empty(len(checked))

    def sklearn_loop() -> None:
        for i, unit in enumerate(checked):
            oracle[i] = average_precision_score(one, responses[unit])

    before = _peak_mib()
    times: dict[str, list[float]] = {"sklearn": [], "ours": [], "ours_shared_negatives": []}
    ap = average_precision(responses[:64], one)  # warm
    for _ in range(rounds):
        times["sklearn"].append(_cpu_s(sklearn_loop) * scale)
        times["ours"].append(_cpu_s(lambda: average_precision(responses, one)))
        times["ours_shared_negatives"].append(
            _cpu_s(lambda: average_precisions(responses, labels)) / _N_CONCEPTS
        )
    ap = average_precision(responses, one)
    error = float(np.abs(ap[checked] - oracle).max())
    peak = _peak_mib()
    del responses

    unit, example = np.divmod(
        np.sort(rng.choice(n_units * n_examples, size=int(_DENSITY * n_units * n_examples), replace=False)),
        n_examples,
    )
    values = rng.exponential(size=len(unit)).astype(np.float32)
    found: list[np.ndarray[Any, Any]] = []

    def sparse() -> None:
        sorted_once = SparseResponses.create(unit, example, values, n_units, n_examples)
        found[:] = [sparse_average_precision(sorted_once, labels[:1])[0]]

    sparse_times = [_cpu_s(sparse) for _ in range(rounds)]
    for u in checked[:200]:
        dense = np.zeros(n_examples, dtype=np.float32)
        dense[example[unit == u]] = values[unit == u]
        error = max(error, abs(float(found[0][u]) - average_precision_score(one, dense)))
    if error > 1e-12:
        raise ComputationFailed(f"an AP differs from sklearn's by {error:g}")
    median = {name: spread(t)["median"] for name, t in times.items()}
    return {
        "benchmark": "experts",
        "n_examples": n_examples,
        "n_units": n_units,
        "n_sklearn_units": len(checked),
        "ratios": {
            "vs_sklearn": median["sklearn"] / median["ours"],
            "vs_sklearn_shared_negatives": median["sklearn"] / median["ours_shared_negatives"],
            "sparse_2pct_cpu_s": spread(sparse_times)["median"],
            "max_abs_error": error,
        },
        "note": f"sklearn was run on {len(checked)} of the units and extrapolated",
        "peak_mib": peak,
        "peak_above_inputs_mib": peak - before,
        "contenders": {name: {"cpu_s": spread(t)} for name, t in times.items()},
        **environment(1, "cpu"),
    }


def _cpu_s(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def _peak_mib() -> float:
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
