"""One contender in a process of its own, so that its memory is its own: `python -m fulcrum.bench.train_worker JSON`.

Prints one JSON object on the last line of standard output.
"""

import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fulcrum.bench.train_data import ActivationFile, Mixture, TrainData
from fulcrum.bench.train_peers import CONTENDERS, OURS
from fulcrum.bench.train_peers.contender import Contender, Spec

_N_HELD_OUT = 16_384
_N_CURVE = 4_096
_N_EVALUATIONS = 12


def main() -> None:
    """Reads the task from the first argument."""
    task = json.loads(sys.argv[1])
    spec = Spec(**task["spec"])
    torch.set_num_threads(spec.threads)
    _warm_up()
    contender = CONTENDERS[spec.contender](spec)
    imported = peak_rss_gib()
    answer = _speed(spec, contender, task["steps"]) if task["mode"] == "speed" else _quality(spec, contender)
    answer |= {"imported_rss_gib": imported, "threads": torch.get_num_threads()}
    print(json.dumps(answer))


def _warm_up() -> None:
    """The first optimiser step of a process imports torch's compiler, seconds that belong to no contender."""
    weight = torch.zeros(1)
    weight.grad = torch.zeros(1)
    torch.optim.Adam([weight], lr=1e-3).step()


def peak_rss_gib() -> float:
    """Largest resident size of this process so far."""
    # Kibibytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _speed(spec: Spec, contender: Contender, steps: int) -> dict[str, Any]:
    """Tokens per CPU second over `steps` steps after one warm-up step; data is drawn outside the clock."""
    data = _data(spec).batches(spec.batch_size)
    contender.prepare(next(data))
    contender.update(next(data))
    cpu, wall, limit = [], [], []
    product = _Product(spec) if spec.contender == OURS else None
    for _ in range(steps):
        x = next(data)
        wall_started, cpu_started = time.perf_counter(), time.process_time()
        contender.update(x)
        cpu.append(time.process_time() - cpu_started)
        wall.append(time.perf_counter() - wall_started)
        if product is not None:
            limit.append(product.seconds(x))
    answer = {
        "tokens_per_cpu_s": spec.batch_size / statistics.median(cpu),
        "tokens_per_s": spec.batch_size / statistics.median(wall),
        "peak_rss_gib": peak_rss_gib(),
    }
    if limit:
        answer["limit_tokens_per_cpu_s"] = spec.batch_size / statistics.median(limit)
    return answer


def _quality(spec: Spec, contender: Contender) -> dict[str, Any]:
    """A whole run: held-out FVU against CPU seconds, then FVU, L0 and dead share at its end."""
    source = _data(spec)
    data, held_out = source.batches(spec.batch_size), source.held_out(_N_HELD_OUT)
    cpu_s = 0.0
    curve: list[tuple[float, float]] = []
    evaluate_at = {round(spec.n_steps * (i + 1) / _N_EVALUATIONS) for i in range(_N_EVALUATIONS)}
    for step in range(spec.n_steps):
        x = next(data)
        started = time.process_time()
        if step == 0:
            contender.prepare(x)
        contender.update(x)
        cpu_s += time.process_time() - started
        if step + 1 in evaluate_at:
            curve.append((cpu_s, _evaluated(spec, contender, held_out[:_N_CURVE])["fvu"]))
    return {
        "cpu_s": cpu_s,
        "tokens": spec.n_steps * spec.batch_size,
        "curve": curve,
        **_evaluated(spec, contender, held_out),
    }


def _evaluated(spec: Spec, contender: Contender, x: Tensor) -> dict[str, float]:
    error = n_active = 0.0
    fired = torch.zeros(spec.d_sae, dtype=torch.bool)
    # Whole batches, because the batch variants of some trainers select over what they are given.
    for part in torch.split(x, spec.batch_size):
        x_hat, active = contender.evaluate(part)
        error += float((part.double() - x_hat.double()).square().sum())
        n_active += float(active.sum())
        fired |= active.any(0)
    variance = float((x.double() - x.double().mean(0)).square().sum())
    return {
        "fvu": error / variance,
        "l0": n_active / x.shape[0],
        "dead": 1.0 - float(fired.double().mean()),
    }


class _Product:
    """The one dense product that no exact trainer can avoid, into a reused buffer."""

    def __init__(self, spec: Spec) -> None:
        self._weights = torch.randn(spec.d_sae, spec.d_in)
        self._out = torch.empty(spec.batch_size, spec.d_sae)

    def seconds(self, x: Tensor) -> float:
        """CPU seconds of one."""
        started = time.process_time()
        torch.mm(x, self._weights.T, out=self._out)
        return time.process_time() - started


def _data(spec: Spec) -> TrainData:
    if spec.activations is not None:
        return ActivationFile(Path(spec.activations), spec.d_in, spec.seed)
    return Mixture(spec.d_in, spec.d_sae, spec.k, spec.seed)


if __name__ == "__main__":
    main()
