"""A run whose loss has stopped falling ends with the decay of the learning rate, and the same way after a break."""

from pathlib import Path

import pytest
import torch
from tests.science.sae.drawn import mixture

from fulcrum.domain.errors import InvalidSaeConfig
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.quality import evaluate_sae
from fulcrum.science.sae.storage import sae_sha256
from fulcrum.science.sae.training.config import Probing, TrainConfig, TrainProgress
from fulcrum.science.sae.training.flatness import Flatness
from fulcrum.science.sae.training.source import TensorSource
from fulcrum.science.sae.training.trainer import train_sae


def flat_run(**fields: object) -> TrainConfig:
    """At this rate all is learned after a tenth of it."""
    standard = {
        "early_stop": True,
        "n_tokens": 400_000,
        "k": 4,
        "batch_size": 250,
        "buffer_tokens": 1500,
        "learning_rate": 5e-3,
    }
    return TrainConfig("topk", 16, 48, **(standard | fields))  # type: ignore[arg-type]


def first_flat(losses: list[float], **fields: object) -> int | None:
    flatness = Flatness(flat_run(**fields))
    for step, loss in enumerate(losses, 1):
        if flatness.add(step, torch.tensor(loss, dtype=torch.float64)):
            return step
    return None


def test_flat_is_two_windows_without_one_percent_of_gain() -> None:
    # 1600 steps: warm-up 80, windows of 80.
    assert first_flat([1.0] * 1600) == 80 + 3 * 80
    assert first_flat([0.999**i for i in range(1600)]) is None
    falls_once = [1.0] * (80 + 80 + 40) + [0.5] * 1400
    assert first_flat(falls_once) == 80 + 5 * 80
    assert first_flat([1.0] * 1600, flat_windows=4) == 80 + 5 * 80
    assert first_flat([0.9**i for i in range(1600)], flat_gain=1.0) is not None


def test_nothing_is_flat_while_sparsity_still_grows() -> None:
    """The loss of a ReLU SAE rises with its weight."""
    config = TrainConfig("relu", 16, 48, n_tokens=400_000, batch_size=250, sparsity_warmup_share=0.5)
    flatness = Flatness(config)
    found = [s for s in range(1, 1601) if flatness.add(s, torch.tensor(1.0))]
    assert found[0] == 800 + 3 * 80


def test_a_flat_run_ends_early_with_the_whole_decay_and_loses_nothing() -> None:
    x = mixture(8_000)
    whole, _ = train_sae(flat_run(early_stop=False), TensorSource(x))
    sae, report = train_sae(flat_run(), TensorSource(x))
    assert report.completed
    assert report.stopped_early
    assert report.steps < 1600
    last = report.history[-1]
    assert (last.step, last.n_steps) == (report.steps, report.steps)
    decaying = [p.learning_rate for p in report.history if p.step > report.steps - 320]
    assert decaying == sorted(decaying, reverse=True)
    assert decaying[0] > 0.9 * 5e-3
    assert decaying[-1] == pytest.approx(5e-3 / 321, rel=1e-6)
    assert report.history[0].n_steps == 1600
    assert evaluate_sae(sae, [x]).fvu < 1.1 * evaluate_sae(whole, [x]).fvu


@pytest.mark.parametrize("at", [100, 333, -100])
def test_a_break_changes_nothing_about_where_it_ends(at: int, tmp_path: Path) -> None:
    x = TensorSource(mixture(8_000))
    straight, expected = train_sae(flat_run(), x)
    stop = at if at > 0 else expected.steps + at  # within the decay

    def until(n_steps: int, n_steps_in_all: int) -> bool:
        return n_steps != stop

    _, broken = train_sae(flat_run(), x, None, tmp_path, on_step=until)
    assert (broken.completed, broken.steps) == (False, stop)
    resumed, report = train_sae(flat_run(), x, None, tmp_path)
    assert (report.steps, report.stopped_early) == (expected.steps, True)
    assert sae_sha256(straight) == sae_sha256(resumed)


def test_a_probe_sees_the_sae_as_it_would_be_returned_and_changes_nothing() -> None:
    x = mixture(3_000)
    seen: list[Sae] = []

    def measure(sae: Sae) -> dict[str, float]:
        seen.append(sae)
        return {"fvu_of_all": evaluate_sae(sae, [x]).fvu}

    config = flat_run(n_tokens=20_000, early_stop=False)
    plain, _ = train_sae(config, TensorSource(x))
    told: list[TrainProgress] = []
    sae, report = train_sae(config, TensorSource(x), told.append, probing=Probing(measure, 30))  # type: ignore[func-returns-value]
    assert [p.step for p in told if p.probed] == [30, 60, 80]
    assert sae_sha256(sae) == sae_sha256(plain) == sae_sha256(seen[-1])
    assert report.history[-1].probed == {"fvu_of_all": evaluate_sae(sae, [x]).fvu}


def test_what_a_step_raises_ends_the_run_without_a_checkpoint(tmp_path: Path) -> None:
    def stop(n_steps: int, n_steps_in_all: int) -> None:
        if n_steps == 7:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        train_sae(flat_run(), TensorSource(mixture(3_000)), None, tmp_path, on_step=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"), [("flat_windows", 0), ("flat_gain", -0.1), ("flat_gain", float("nan"))]
)
def test_impossible_settings_are_refused(field: str, value: float) -> None:
    with pytest.raises(InvalidSaeConfig, match=field):
        flat_run(**{field: value})
