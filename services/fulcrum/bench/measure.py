"""Interleaved timing: A B A B after a warm-up, wall and CPU seconds side by side."""

import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, Any]]:
    """Per contender `wall_s` and `cpu_s`: min, median, max over the rounds, the warm-up left out."""
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        for name, run in contenders.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            run()
            _finish()
            if round_:
                wall[name].append(time.perf_counter() - started)
                cpu[name].append(time.process_time() - cpu_started)
    return {name: {"wall_s": spread(wall[name]), "cpu_s": spread(cpu[name])} for name in contenders}


def spread(values: list[float]) -> dict[str, float]:
    """Min, median and max."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratio(results: Mapping[str, Mapping[str, Any]], slow: str, fast: str, device: str) -> float:
    """How often `fast` fits into `slow`: median CPU seconds on a CPU (machines are shared), wall seconds on a GPU."""
    clock = "cpu_s" if device == "cpu" else "wall_s"
    return float(results[slow][clock]["median"] / results[fast][clock]["median"])


def environment(threads: int, device: str) -> dict[str, Any]:
    """What the numbers were measured with."""
    return {
        "threads": threads,
        "device": _device_name(device),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("fulcrum", "torch", "open_clip_torch", "numpy")
        },
    }


def _finish() -> None:
    """Waits for what was asked of a GPU."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return "cpu"
    import torch  # not for benchmarks that measure memory without it

    return str(torch.cuda.get_device_name(device))
