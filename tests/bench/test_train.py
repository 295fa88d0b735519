"""The training benchmark: that it asks everybody the same and computes its ratios right. Never the time."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fulcrum.bench import train, train_worker
from fulcrum.bench.train import TrainBenchOptions, cpu_seconds_to, run
from fulcrum.bench.train_data import ActivationFile, Mixture
from fulcrum.bench.train_peers import CONTENDERS, OURS, PACKAGES
from fulcrum.bench.train_peers.contender import Spec
from fulcrum.domain.errors import ComputationFailed, InvalidSettings, MissingDependency

TINY = TrainBenchOptions(d_in=16, d_sae=64, k=4, batch_size=64, tokens=64 * 30, rounds=3, peers=("sae_lens",))


class FakeWorker:
    """Ours makes 1000, 1100, 1200 tokens per CPU second in its rounds, a peer 500, 500, 400."""

    def __init__(self, our_curve: list[tuple[float, float]]) -> None:
        self.asked: list[tuple[Spec, str]] = []
        self._our_curve = our_curve
        self._speeds = {OURS: iter([1000.0, 1100.0, 1200.0]), "peer": iter([500.0, 500.0, 400.0])}

    def __call__(self, spec: Spec, mode: str, steps: int) -> dict[str, Any]:
        self.asked.append((spec, mode))
        ours = spec.contender == OURS
        if mode == "speed":
            speed = next(self._speeds[OURS if ours else "peer"])
            answer = {
                "tokens_per_cpu_s": speed,
                "tokens_per_s": speed,
                "peak_rss_gib": 1.0,
                "imported_rss_gib": 0.5,
            }
            return answer | ({"limit_tokens_per_cpu_s": 2000.0} if ours else {})
        curve = self._our_curve if ours else [(10.0, 0.6), (20.0, 0.4)]
        return {
            "curve": curve,
            "cpu_s": curve[-1][0],
            "fvu": curve[-1][1],
            "dead": 0.1,
            "l0": 4.0,
            "tokens": 9,
        }


@pytest.fixture(autouse=True)
def peer_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "installed_peers", lambda variant: ["sae_lens"])


def test_ratios_are_medians_of_the_rounds() -> None:
    answer = run(TINY, worker=FakeWorker([(2.0, 0.8), (4.0, 0.2)]))
    assert answer["ratios"]["vs_sae_lens"] == pytest.approx(2.2)
    assert answer["ratios"]["vs_fastest"] == answer["ratios"]["vs_sae_lens"]
    assert answer["fastest_peer"] == "sae_lens"
    assert answer["ratios"]["limit_share"] == pytest.approx(0.55)
    assert answer["contenders"][OURS]["tokens_per_cpu_s"] == {"min": 1000.0, "median": 1100.0, "max": 1200.0}
    json.dumps(answer)


def test_time_to_a_peers_fvu_is_interpolated_on_our_curve() -> None:
    answer = run(TINY, worker=FakeWorker([(2.0, 0.8), (4.0, 0.2)]))
    assert answer["ratios"]["time_to_fvu_vs_sae_lens"] == pytest.approx(20.0 / (2.0 + 2.0 * 0.4 / 0.6))
    assert answer["fvu_not_reached"] == []


def test_an_fvu_that_we_do_not_reach_is_said_and_not_extrapolated() -> None:
    answer = run(TINY, worker=FakeWorker([(2.0, 0.8), (4.0, 0.5)]))
    assert answer["fvu_not_reached"] == ["sae_lens"]
    assert "time_to_fvu_vs_sae_lens" not in answer["ratios"]


def test_contenders_take_turns_and_are_asked_the_same() -> None:
    worker = FakeWorker([(2.0, 0.8), (4.0, 0.2)])
    run(TINY, worker=worker)
    speeds = [spec.contender for spec, mode in worker.asked if mode == "speed"]
    assert speeds == [OURS, "sae_lens"] * 3
    tasks = {json.dumps({**vars(spec), "contender": "", "learning_rate": 0}) for spec, _ in worker.asked}
    assert len(tasks) == 1
    rates = {name: [s.learning_rate for s, m in worker.asked if m == "quality" and s.contender == name] for name in
             (OURS, "sae_lens")}  # fmt: skip
    assert rates[OURS] == rates["sae_lens"] == [2e-3, 4e-3]


def test_a_diverged_run_is_an_error() -> None:
    with pytest.raises(ComputationFailed, match="diverged"):
        run(TINY, worker=FakeWorker([(2.0, math.nan)]))


def test_a_missing_peer_is_named() -> None:
    with pytest.raises(MissingDependency, match="eai-sparsify"):
        run(TrainBenchOptions(peers=("eai_sparsify",)), worker=FakeWorker([]))


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([(1.0, 0.5)], 1.0),
        ([(1.0, 0.9), (3.0, 0.5), (4.0, 0.1)], 3.0),
        ([(1.0, 0.7), (3.0, 0.3)], 2.0),
        ([(1.0, 0.9), (3.0, 0.6)], None),
        ([], None),
    ],
)
def test_the_crossing_of_a_curve(curve: list[tuple[float, float]], expected: float | None) -> None:
    assert cpu_seconds_to(curve, 0.5) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "fields",
    [
        {"k": 0},
        {"k": 7000},
        {"rounds": 0},
        {"tokens": 4096},
        {"learning_rates": ()},
        {"learning_rates": (-1.0,)},
        {"peers": ("nobody",)},
    ],
)
def test_impossible_options_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings):
        TrainBenchOptions(**fields)


def test_the_mixture_is_the_same_for_everybody_and_never_repeats() -> None:
    one, other = (Mixture(16, 64, 4, seed=3).batches(50) for _ in range(2))
    first, second = next(one), next(one)
    assert torch.equal(first, next(other))
    assert torch.equal(second, next(other))
    assert not torch.equal(first, second)
    assert not torch.equal(first, Mixture(16, 64, 4, seed=3).held_out(50))


def test_rows_of_a_file_are_either_trained_on_or_held_out(tmp_path: Path) -> None:
    rows = np.arange(200, dtype=np.float32)[:, None].repeat(3, 1)
    np.save(tmp_path / "x.npy", rows)
    source = ActivationFile(tmp_path / "x.npy", 3, seed=0)
    batches = source.batches(60)
    trained = torch.cat([next(batches) for _ in range(3)])[:, 0].tolist()
    held_out = source.held_out(1000)[:, 0].tolist()
    assert sorted(trained + held_out) == list(range(200))
    with pytest.raises(InvalidSettings, match="expected"):
        ActivationFile(tmp_path / "x.npy", 4, seed=0)


@pytest.mark.parametrize("variant", ["topk", "batch_topk", "matryoshka"])
def test_our_contender_learns_what_the_worker_feeds_it(variant: Any) -> None:
    spec = Spec(OURS, variant, 16, 64, 4, 128, 128 * 60, 1e-2, 0, 1)
    answer = train_worker._quality(spec, CONTENDERS[OURS](spec))
    assert answer["fvu"] < 0.8 * answer["curve"][0][1]
    assert 2 < answer["l0"] < 6
    assert [seconds for seconds, _ in answer["curve"]] == sorted(seconds for seconds, _ in answer["curve"])
    speed = train_worker._speed(spec, CONTENDERS[OURS](spec), 2)
    assert speed["tokens_per_cpu_s"] > 0
    assert speed["limit_tokens_per_cpu_s"] > 0
    assert speed["peak_rss_gib"] > 0


def test_every_public_contender_has_a_package() -> None:
    assert set(CONTENDERS) == {OURS, *PACKAGES}
