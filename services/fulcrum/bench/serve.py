"""Serving against a bare OpenCLIP loop: what gRPC, HTTP and many callers cost, and what the prefix cache saves.

The bare loop is what a script without a server does: decode, preprocess, `encode_image`, at the batch size which is
best on this machine. Both sides begin with the same encoded image files.
"""

import io
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from fulcrum.bench.measure import environment, spread
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Scale
from fulcrum.domain.engine import InferenceEngine
from fulcrum.domain.errors import ComputationFailed
from fulcrum.domain.models import ModelRef
from fulcrum.domain.results import FloatArray
from fulcrum.domain.tasks import ClassSet, MarginTarget
from fulcrum.engine.residency import Residency
from fulcrum.science.attribution.targets import target_function
from fulcrum.science.steering.edits import EditPlan, apply_edits
from fulcrum.science.vision.images import decode_image
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.split import HookState

CALLERS = (1, 8, 64)
BATCH_SIZES = (1, 4, 8, 16, 32, 64)
N_STEERS = 20
GAINS = tuple(i / 10 for i in range(21))
N_ALONE = 24  # calls of one caller in each round
_PAUSE_S = 0.02  # until the threads of the call before have stopped spinning: here both sides share the cores
N_SHOWN = 20  # latents of the explanation, each with its measured ablation
_TASK = ClassSet(("dog", "cat", "car", "tree"))


class Served(Protocol):
    """The running platform, as the benchmark uses it."""

    def engine(self, user: str) -> InferenceEngine:
        """A new gRPC client."""
        ...

    def predict_over_http(self, ref: ModelRef, image: bytes, task: ClassSet) -> Callable[[], FloatArray]:
        """Uploads and registers, then returns a call that asks the gateway for the logits of the image."""
        ...

    def memory_bytes(self) -> int:
        """Resident memory of the inference service."""
        ...


@dataclass(frozen=True)
class ServedModel:
    """`local` is the reference in this process, `remote` the same model on the wire."""

    name: str
    local: ModelRef
    remote: ModelRef
    local_sae: str
    remote_sae: str


def bench_serve(
    models: Sequence[ServedModel],
    platform: Served,
    rounds: int = 3,
    images_per_round: int = 256,
    threads: int = 2,
    on_event: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """One JSON object; the ratios of the first model also stand without its name.

    * `throughput_share_<n>`: images per second through gRPC with n callers (one image a call), over those of the
      bare loop at its best batch size; medians of interleaved rounds.
    * `p50_overhead_ms_grpc`, `_http`: median latency of one caller over the bare loop's for one image, the three
      asked in turn.
    * `p99_ms_64`: 99th percentile of latency with 64 callers.
    * `session_speedup`: explain (20 measured latents), 20 steers and a 21-gain sweep of one image as full forwards,
      one a question, over the same session through gRPC with the prefix cached.

    Raises ComputationFailed when the answers of the two sides differ.
    """
    report = on_event or (lambda _: None)
    torch.set_num_threads(threads)
    measured = {
        m.name: _bench_model(m, platform, rounds, images_per_round, partial(_tell, report, m.name))
        for m in models
    }
    ratios = dict(measured[models[0].name]["ratios"])
    for name, result in measured.items():
        ratios |= {f"{name}_{key}": value for key, value in result["ratios"].items()}
    return {
        "benchmark": "serve",
        "ratios": ratios,
        "models": measured,
        "memory_bytes": platform.memory_bytes(),
        **environment(threads, "cpu"),
    }


def _tell(report: Callable[[str], None], name: str, text: str) -> None:
    report(f"{name}: {text}")


def _bench_model(
    model: ServedModel, platform: Served, rounds: int, n_images: int, report: Callable[[str], None]
) -> dict[str, Any]:
    steerable = Residency().steerable(model.local, model.local_sae)
    loaded = steerable.loaded
    files = _files(n_images, loaded.info.image_size)
    engine = platform.engine("bench")
    engine.load_model(model.remote)
    _compare(engine.encode_images(model.remote, files[:16]), _bare(loaded, files[:16], 16))
    best, by_size = _best_batch_size(loaded, files[:64])
    report(f"bare loop is best at batch size {best}: {by_size[best]:.0f} images/s")
    rates: dict[str, list[float]] = {"bare": [], **{str(n): [] for n in CALLERS}}
    latencies: dict[int, list[float]] = {n: [] for n in CALLERS}
    bare_one: list[float] = []
    grpc_one: list[float] = []
    http_one: list[float] = []
    over_http = platform.predict_over_http(model.remote, files[0], _TASK)
    engines = [platform.engine(f"bench-{i % 8}") for i in range(max(CALLERS))]
    for round_ in range(rounds + 1):  # the first one warms up
        keep = round_ > 0
        started = time.perf_counter()
        _bare(loaded, files, best)
        rate = len(files) / (time.perf_counter() - started)
        if keep:
            rates["bare"].append(rate)
        for n in CALLERS:
            some = files if n > 1 else files[: max(32, len(files) // 4)]
            rate, times = _served(engines[:n], model.remote, some)
            if keep:
                rates[str(n)].append(rate)
                latencies[n] += times
        # Call by call in turn: over separate blocks a machine drifts by more than the few milliseconds sought here.
        for i in range(N_ALONE):
            one = [files[i % len(files)]]
            time.sleep(_PAUSE_S)
            alone = _timed(partial(_bare, loaded, one, 1))
            time.sleep(_PAUSE_S)
            grpc = _timed(partial(engine.encode_images, model.remote, one))
            time.sleep(_PAUSE_S)
            http = _timed(over_http)
            if keep:
                bare_one.append(alone)
                grpc_one.append(grpc)
                http_one.append(http)
        report(f"round {round_}/{rounds}: " + ", ".join(f"{k} {v[-1]:.0f}/s" for k, v in rates.items() if v))
    session = _session(model, steerable, engine, rounds, files)
    bare_rate, bare_p50 = statistics.median(rates["bare"]), statistics.median(bare_one)
    ratios = {f"throughput_share_{n}": statistics.median(rates[str(n)]) / bare_rate for n in CALLERS}
    ratios |= {
        "p50_overhead_ms_grpc": 1e3 * (statistics.median(grpc_one) - bare_p50),
        "p50_overhead_ms_http": 1e3 * (statistics.median(http_one) - bare_p50),
        "p99_ms_64": 1e3 * float(np.quantile(latencies[64], 0.99)),
        "session_speedup": session["full_forwards"]["median"] / session["served"]["median"],
    }
    return {
        "ratios": ratios,
        "best_batch_size": best,
        "images_per_s": {name: spread(values) for name, values in rates.items()},
        "bare_by_batch_size": by_size,
        "latency_s": {"bare": spread(bare_one), "grpc": spread(grpc_one), "http": spread(http_one)}
        | {f"grpc_{n}": spread(values) for n, values in latencies.items()},
        "session_s": session,
    }


def _files(n: int, size: int) -> list[bytes]:
    """JPEGs, all different, a little larger than the model's input, as uploads are."""
    random = np.random.default_rng(0)
    side = round(size * 1.3)
    files = []
    for _ in range(n):
        small = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        out = io.BytesIO()
        small.resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
        files.append(out.getvalue())
    return files


@torch.no_grad()
def _bare(loaded: LoadedModel, files: Sequence[bytes], batch_size: int) -> FloatArray:
    parts = []
    for start in range(0, len(files), batch_size):
        pixels = loaded.preprocess([decode_image(f) for f in files[start : start + batch_size]])
        parts.append(normalize(loaded.model.encode_image(pixels, normalize=False).float(), dim=-1))
    return torch.cat(parts).numpy()


def _best_batch_size(loaded: LoadedModel, files: Sequence[bytes]) -> tuple[int, dict[int, float]]:
    rates: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
    for round_ in range(3):
        for size in BATCH_SIZES:
            seconds = _timed(partial(_bare, loaded, files, size))
            if round_:
                rates[size].append(len(files) / seconds)
    medians = {size: statistics.median(values) for size, values in rates.items()}
    return max(medians, key=lambda size: medians[size]), medians


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _served(
    engines: Sequence[InferenceEngine], ref: ModelRef, files: Sequence[bytes]
) -> tuple[float, list[float]]:
    """Images per second of all callers together, and the latency of every call."""
    shares = [list(files[i :: len(engines)]) for i in range(len(engines))]

    def call(engine: InferenceEngine, mine: list[bytes]) -> list[float]:
        return [_timed(partial(engine.encode_images, ref, [f])) for f in mine]

    with ThreadPoolExecutor(len(engines)) as pool:
        started = time.perf_counter()
        times = [t for part in pool.map(call, engines, shares) for t in part]
        seconds = time.perf_counter() - started
    return len(files) / seconds, times


def _session(
    model: ServedModel, steerable: Any, engine: InferenceEngine, rounds: int, files: Sequence[bytes]
) -> dict[str, dict[str, float]]:
    """The same questions as full forwards, and through gRPC; a new image each round, so that nothing is cached."""
    loaded, tower, sae = steerable.loaded, steerable.tower, steerable.sae
    head = Residency().head(model.local, _TASK)
    y = target_function(head, MarginTarget("dog", "cat"))
    target = MarginTarget("dog", "cat")
    info = engine.load_sae(model.remote_sae, model.remote)
    weights = engine.load_model(model.remote).weights_sha256

    def full(file: bytes, latents: Sequence[int]) -> FloatArray:
        pixels = loaded.preprocess([decode_image(file)])

        @torch.no_grad()
        def steered(plan: EditPlan) -> Tensor:
            now = tower.prefix(pixels)
            embedding: Tensor = tower.suffix(HookState(apply_edits(tower, sae, now.x, [plan]).x, now.carry))
            return embedding

        state = tower.prefix(pixels)
        x = state.x.detach().requires_grad_()
        y(tower.suffix(state.with_x(x))).sum().backward()  # explain: one pass forth and back ...
        for latent in latents:  # ... and the measured effect of what is shown
            steered(EditPlan((Scale(latent, 0.0),)))
        for i in range(N_STEERS):
            steered(EditPlan(()))
            steered(EditPlan((Scale(latents[i % len(latents)], 0.5),)))
        with torch.no_grad():
            values = [y(steered(EditPlan((Scale(latents[0], gain),)))) for gain in GAINS]
        return torch.cat(values).numpy()

    def served(file: bytes, latents: list[int]) -> FloatArray:
        found = engine.attribute(model.remote, model.remote_sae, file, _TASK, target, n_latents=N_SHOWN)
        latents += [a.latent for a in found.latents]
        for i in range(N_STEERS):
            edits = (Scale(latents[i % len(latents)], 0.5),)
            correction = Correction(weights, info.weights_sha256, str(info.hook_point), edits)
            engine.steer(model.remote, model.remote_sae, file, correction, _TASK, target, n_controls=0)
        dose = engine.sweep(model.remote, model.remote_sae, file, latents[:1], GAINS, _TASK, target)
        return dose.target_values

    times: dict[str, list[float]] = {"full_forwards": [], "served": []}
    for round_ in range(rounds + 1):
        file, latents = files[round_], list[int]()
        started = time.perf_counter()
        ours = served(file, latents)
        between = time.perf_counter()
        theirs = full(file, latents)
        ended = time.perf_counter()
        _compare(ours, theirs)
        if round_:
            times["served"].append(between - started)
            times["full_forwards"].append(ended - between)
    return {name: spread(values) for name, values in times.items()}


def _compare(ours: FloatArray, bare: FloatArray) -> None:
    difference, scale = float(np.abs(ours - bare).max()), float(np.abs(bare).max())
    if difference > 1e-3 * max(scale, 1e-6):
        raise ComputationFailed(
            f"served and bare answers differ by {difference:g} at a scale of {scale:g}: their times mean nothing"
        )
