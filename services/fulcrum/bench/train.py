"""SAE training against public trainers: speed, memory, and quality for the time spent (PERFORMANCE.md 1).

Speed: rounds of A B A B, each contender in a fresh process on the same batches, CPU seconds of the training
step alone. Quality: each contender trains on the same tokens once per learning rate of the same budget.
"""

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from fulcrum.bench.measure import environment, spread
from fulcrum.bench.train_peers import OURS, PACKAGES, installed_peers
from fulcrum.bench.train_peers.contender import BenchVariant, Spec
from fulcrum.domain.errors import ComputationFailed, InvalidSettings, MissingDependency


@dataclass(frozen=True)
class TrainBenchOptions:
    """Size of the benchmark; `--quick` of the command line is `quick()`."""

    variant: BenchVariant = "topk"
    d_in: int = 768
    d_sae: int = 6144
    k: int = 32
    batch_size: int = 4096
    tokens: int = 200_000  # per quality run; 0 leaves quality out
    learning_rates: tuple[float, ...] = (2e-3, 4e-3)
    rounds: int = 5  # of the speed comparison
    steps: int = 3  # per round
    threads: int = 1
    seed: int = 0
    peers: tuple[str, ...] = ()  # empty: every installed one that knows the variant
    activations: Path | None = None  # .npy (n, d_in); None: a drawn mixture

    def __post_init__(self) -> None:
        for name in ("d_in", "d_sae", "k", "batch_size", "rounds", "steps", "threads"):
            if getattr(self, name) < 1:
                raise InvalidSettings(f"{name}={getattr(self, name)} must be >= 1")
        if self.k > self.d_sae:
            raise InvalidSettings(f"k={self.k} must be at most d_sae={self.d_sae}")
        if self.tokens != 0 and self.tokens < 20 * self.batch_size:
            raise InvalidSettings(
                f"tokens={self.tokens} must be 0 or at least 20 batches of {self.batch_size}"
            )
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise InvalidSettings(f"learning_rates={self.learning_rates} must be positive, at least one")
        unknown = sorted(set(self.peers) - set(PACKAGES))
        if unknown:
            raise InvalidSettings(f"unknown peers {unknown}; known are {sorted(PACKAGES)}")

    @classmethod
    def quick(cls) -> "TrainBenchOptions":
        """Two to three minutes on one core: a quarter of the width, one learning rate."""
        return cls(
            d_in=384, d_sae=3072, batch_size=2048, tokens=60_000, learning_rates=(4e-3,), rounds=3, steps=2
        )


# Runs one contender's task in a fresh process and returns its answer; tests pass a fake.
Worker = Callable[[Spec, str, int], dict[str, Any]]


def run(
    options: TrainBenchOptions | None = None,
    on_event: Callable[[str], None] | None = None,
    worker: Worker | None = None,
) -> dict[str, Any]:
    """One JSON object: ratios, each contender's numbers, and what was run where.

    `vs_<peer>` is our tokens per CPU second over the peer's (median of the rounds); `time_to_fvu_vs_<peer>` the
    CPU seconds the peer's best run took over those that ours needed for the same FVU, absent and listed in
    `fvu_not_reached` where ours did not get there; `limit_share` our speed over that of one dense product.

    Raises MissingDependency without an installed peer, ComputationFailed when a contender's process fails or
    diverges.
    """
    options = options or TrainBenchOptions()
    report = on_event or (lambda _: None)
    peers = list(options.peers) or installed_peers(options.variant)
    missing = sorted(set(peers) - set(installed_peers(options.variant)))
    if missing or not peers:
        packages = ", ".join(sorted({PACKAGES[name][1] for name in missing or PACKAGES}))
        raise MissingDependency(f"for {options.variant} install {packages} (dependency group `bench`)")
    names = [OURS, *peers]
    ask = worker or _fresh_process
    speeds = _speeds(options, names, ask, report)
    qualities = _qualities(options, names, ask, report) if options.tokens else {}
    times, not_reached = _times_to_fvu(qualities, peers) if qualities else ({}, [])
    described = environment(options.threads, "cpu")
    described["versions"] |= {PACKAGES[peer][1]: metadata.version(PACKAGES[peer][1]) for peer in peers}
    return {
        "benchmark": "train",
        "options": _plain(options),
        "ratios": {**_speed_ratios(speeds, peers), **times},
        "fastest_peer": _fastest(speeds, peers),
        "fvu_not_reached": not_reached,
        "contenders": {name: _summary(speeds[name], qualities.get(name, [])) for name in names},
        **described,
    }


def _speeds(
    options: TrainBenchOptions, names: list[str], worker: Worker, report: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    speeds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for index in range(options.rounds):
        for name in names:
            answer = worker(_spec(options, name, options.learning_rates[0]), "speed", options.steps)
            speeds[name].append(answer)
            report(
                f"round {index + 1}/{options.rounds} {name}: {answer['tokens_per_cpu_s']:.0f} tokens/CPU s"
            )
    return speeds


def _qualities(
    options: TrainBenchOptions, names: list[str], worker: Worker, report: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    qualities: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for rate in options.learning_rates:
        for name in names:
            answer = worker(_spec(options, name, rate), "quality", 0)
            if not math.isfinite(answer["fvu"]):
                raise ComputationFailed(f"{name} diverged at learning rate {rate:g}")
            qualities[name].append({"learning_rate": rate, **answer})
            report(
                f"{name} at {rate:g}: FVU {answer['fvu']:.3f}, dead {answer['dead']:.1%}, L0 {answer['l0']:.1f}, "
                f"{answer['cpu_s']:.0f} CPU s"
            )
    return qualities


def _fresh_process(spec: Spec, mode: str, steps: int) -> dict[str, Any]:
    """Runs one contender in a fresh process."""
    task = json.dumps({"spec": asdict(spec), "mode": mode, "steps": steps})
    count = str(spec.threads)
    environment = os.environ | {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-m", "fulcrum.bench.train_worker", task],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise ComputationFailed(f"{spec.contender} failed: {done.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _spec(options: TrainBenchOptions, name: str, learning_rate: float) -> Spec:
    return Spec(
        contender=name,
        variant=options.variant,
        d_in=options.d_in,
        d_sae=options.d_sae,
        k=options.k,
        batch_size=options.batch_size,
        n_tokens=options.tokens or 50 * options.batch_size,
        learning_rate=learning_rate,
        seed=options.seed,
        threads=options.threads,
        activations=None if options.activations is None else str(options.activations),
    )


def _speed_ratios(speeds: dict[str, list[dict[str, Any]]], peers: list[str]) -> dict[str, float]:
    """Medians of the ratios within rounds, because the machine's speed drifts between rounds."""
    ours = [answer["tokens_per_cpu_s"] for answer in speeds[OURS]]
    limits = [answer["limit_tokens_per_cpu_s"] for answer in speeds[OURS]]
    ratios = {}
    for peer in peers:
        theirs = [answer["tokens_per_cpu_s"] for answer in speeds[peer]]
        ratios[f"vs_{peer}"] = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    ratios["vs_fastest"] = ratios[f"vs_{_fastest(speeds, peers)}"]
    ratios["limit_share"] = statistics.median(a / b for a, b in zip(ours, limits, strict=True))
    return ratios


def _fastest(speeds: dict[str, list[dict[str, Any]]], peers: list[str]) -> str:
    return max(peers, key=lambda peer: statistics.median(a["tokens_per_cpu_s"] for a in speeds[peer]))


def _times_to_fvu(
    qualities: dict[str, list[dict[str, Any]]], peers: list[str]
) -> tuple[dict[str, float], list[str]]:
    times: dict[str, float] = {}
    not_reached = []
    for peer in peers:
        best = min(qualities[peer], key=lambda answer: answer["fvu"])
        # The end of the peer's curve, which is on the same held-out tokens as ours.
        target = best["curve"][-1][1]
        reached = [cpu_seconds_to(answer["curve"], target) for answer in qualities[OURS]]
        seconds = [value for value in reached if value is not None]
        if seconds:
            times[f"time_to_fvu_vs_{peer}"] = best["cpu_s"] / min(seconds)
        else:
            not_reached.append(peer)
    return times, not_reached


def cpu_seconds_to(curve: list[tuple[float, float]], target: float) -> float | None:
    """CPU seconds at which a curve of (CPU seconds, FVU) first falls to `target`; None if it never does.

    Linear between the two evaluations around it; never before the first evaluation.
    """
    previous: tuple[float, float] | None = None
    for seconds, fvu in curve:
        if fvu <= target:
            if previous is None or previous[1] == fvu:
                return seconds
            share = (previous[1] - target) / (previous[1] - fvu)
            return previous[0] + share * (seconds - previous[0])
        previous = (seconds, fvu)
    return None


def _summary(speeds: list[dict[str, Any]], qualities: list[dict[str, Any]]) -> dict[str, Any]:
    values = [answer["tokens_per_cpu_s"] for answer in speeds]
    summary: dict[str, Any] = {
        "tokens_per_cpu_s": spread(values),
        "tokens_per_s": statistics.median(answer["tokens_per_s"] for answer in speeds),
        "peak_rss_gib": max(answer["peak_rss_gib"] for answer in speeds),
        "imported_rss_gib": max(answer["imported_rss_gib"] for answer in speeds),
    }
    if qualities:
        best = min(qualities, key=lambda answer: answer["fvu"])
        summary |= {key: best[key] for key in ("fvu", "dead", "l0", "cpu_s", "learning_rate")}
        summary["runs"] = qualities
    return summary


def _plain(options: TrainBenchOptions) -> dict[str, Any]:
    fields = asdict(options)
    fields["activations"] = None if options.activations is None else options.activations.name
    return fields
