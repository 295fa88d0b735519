"""Training as a caller sees it."""

import json
import resource
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.science.sae.drawn import mixture
from torch import Tensor

from fulcrum.domain.errors import ComputationFailed, CorruptCheckpoint, InvalidSaeConfig
from fulcrum.domain.models import Variant
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.quality import evaluate_sae, untrained_twin
from fulcrum.science.sae.storage import load_sae, sae_sha256, save_sae
from fulcrum.science.sae.training.checkpoint import CHECKPOINT_FILE
from fulcrum.science.sae.training.config import TrainConfig, TrainProgress
from fulcrum.science.sae.training.schedule import learning_rate
from fulcrum.science.sae.training.source import StreamSource, TensorSource
from fulcrum.science.sae.training.trainer import train_sae
from fulcrum.science.sae.variants import VARIANTS

ALL = list(VARIANTS)


def small(variant: Variant = "topk", **fields: object) -> TrainConfig:
    standard = {"n_tokens": 20_000, "k": 4, "batch_size": 250, "buffer_tokens": 1500, "learning_rate": 5e-3}
    return TrainConfig(variant, 16, 48, **(standard | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", ALL)
def test_a_trained_sae_explains_most_variance_and_its_untrained_twin_does_not(
    variant: Variant, tmp_path: Path
) -> None:
    x = mixture(8_000)
    sae, report = train_sae(small(variant, n_tokens=100_000), TensorSource(x[:6000]))
    held_out = [x[6000:]]
    quality, twin = evaluate_sae(sae, held_out), evaluate_sae(untrained_twin(sae), held_out)
    assert quality.fvu < 0.3
    assert twin.fvu > 2 * quality.fvu
    assert quality.l0 < 24
    assert report.completed
    assert report.steps == 400
    assert report.tokens == 100_000
    save_sae(sae, tmp_path, quality.as_dict())
    assert evaluate_sae(load_sae(tmp_path), held_out) == quality


@pytest.mark.parametrize("variant", ["batch_topk", "matryoshka"])
def test_the_learned_threshold_keeps_about_k_latents_at_inference(variant: Variant) -> None:
    x = mixture(6_000)
    sae, _ = train_sae(small(variant, n_tokens=60_000), TensorSource(x))
    assert 3.0 < evaluate_sae(sae, [x]).l0 < 5.0


def test_smaller_prefixes_of_a_matryoshka_sae_reconstruct_too() -> None:
    x = mixture(6_000)
    config = small("matryoshka", n_tokens=60_000, prefixes=(12, 24, 48))
    sae, _ = train_sae(config, TensorSource(x))
    z = sae.encode(x)
    errors = [
        float((sae.denormalise(z[:, :w] @ sae.W_dec[:w] + sae.b_dec) - x).square().sum())
        for w in (12, 24, 48)
    ]
    variance = float((x - x.mean(0)).square().sum())
    assert errors[2] < errors[1] < errors[0] < 0.8 * variance


@pytest.mark.parametrize("variant", ["topk", "batch_topk", "matryoshka", "jumprelu"])
def test_a_resumed_run_ends_with_the_same_bits(variant: Variant, tmp_path: Path) -> None:
    x, config = mixture(4_000), small(variant, dead_after_tokens=1000)
    straight, _ = train_sae(config, TensorSource(x))
    stops = iter([False, False])

    def stop_twice(progress: TrainProgress) -> bool:
        return next(stops, True) if progress.step in (20, 50) else True

    reports = [train_sae(config, TensorSource(x), stop_twice, tmp_path)[1] for _ in range(2)]
    assert [(r.completed, r.steps) for r in reports] == [(False, 20), (False, 50)]
    resumed, report = train_sae(config, TensorSource(x), None, tmp_path)
    assert report.completed
    assert [p.step for p in report.history] == list(range(10, 81, 10))
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert sae_sha256(straight) == sae_sha256(resumed)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    x, config = mixture(2_000), small()
    first, _ = train_sae(config, TensorSource(x), None, tmp_path)
    again, report = train_sae(config, TensorSource(x), None, tmp_path)
    assert sae_sha256(first) == sae_sha256(again)
    assert report.completed
    assert report.steps == 80


def test_checkpoints_hold_tensors_and_json_only(tmp_path: Path) -> None:
    train_sae(small(), TensorSource(mixture(2_000)), None, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]
    with safe_open(tmp_path / CHECKPOINT_FILE, framework="pt") as file:
        assert json.loads(file.metadata()["numbers"])["step"] == 80


def test_a_full_disk_is_said_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    x, config = TensorSource(mixture(2_000)), small()
    train_sae(config, x, None, tmp_path, on_step=lambda done, total: done < 10)
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="could not be written"):
            train_sae(config, x, None, tmp_path, on_step=lambda done, total: done < 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT_FILE]
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == before


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    x = TensorSource(mixture(2_000))
    train_sae(small(), x, None, tmp_path)
    with pytest.raises(CorruptCheckpoint, match="another configuration"):
        train_sae(small(learning_rate=1e-3), x, None, tmp_path)
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptCheckpoint, match="not a readable"):
        train_sae(small(), x, None, tmp_path)


def test_the_seed_decides_and_nothing_else_does() -> None:
    x = mixture(3_000)
    torch.manual_seed(1)
    one, _ = train_sae(small(n_tokens=5_000), TensorSource(x))
    torch.manual_seed(2)
    same, _ = train_sae(small(n_tokens=5_000), TensorSource(x, chunk=77))
    other, _ = train_sae(small(n_tokens=5_000, seed=1), TensorSource(x))
    assert sae_sha256(one) == sae_sha256(same) != sae_sha256(other)


def test_a_stream_gives_the_same_result_as_the_tensor_it_streams() -> None:
    x = mixture(3_000)
    stream = StreamSource(lambda: iter(x.split(130)), 3_000, 16)
    from_stream, _ = train_sae(small(), stream)
    from_tensor, _ = train_sae(small(), TensorSource(x))
    assert sae_sha256(from_stream) == sae_sha256(from_tensor)
    torch.testing.assert_close(torch.cat(list(stream.read(1234))), x[1234:])


def test_each_token_is_used_once_per_epoch() -> None:
    """The shuffle buffer loses none and repeats none, across block and epoch borders."""
    from fulcrum.science.sae.training.source import ShuffledBlocks

    x = torch.arange(1000.0)[:, None]
    blocks = ShuffledBlocks(TensorSource(x, chunk=33), 400, 0, torch.float32, torch.device("cpu"))
    seen = torch.cat([blocks.block(i).clone().squeeze(1) for i in range(5)])
    assert torch.equal(seen[:400].sort().values, torch.arange(400.0))
    assert not torch.equal(seen[:400], torch.arange(400.0))
    assert torch.equal(torch.bincount(seen.long()), torch.full((1000,), 2))
    again = ShuffledBlocks(TensorSource(x, chunk=7), 400, 0, torch.float32, torch.device("cpu"))
    assert torch.equal(again.block(3).squeeze(1), seen[1200:1600])


def test_float16_buffers_train_as_well() -> None:
    x = mixture(6_000)
    full, _ = train_sae(small(n_tokens=60_000), TensorSource(x))
    half, _ = train_sae(small(n_tokens=60_000, buffer_dtype="float16"), TensorSource(x))
    assert evaluate_sae(half, [x]).fvu == pytest.approx(evaluate_sae(full, [x]).fvu, rel=0.1)


@pytest.mark.parametrize("subtract_mean", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
def test_every_normalisation_reconstructs_in_model_units(subtract_mean: bool, rescale: bool) -> None:
    x = 7 * mixture(6_000)
    config = small(n_tokens=60_000, subtract_mean=subtract_mean, rescale=rescale)
    sae, _ = train_sae(config, TensorSource(x))
    assert evaluate_sae(sae, [x]).fvu < 0.35


def test_progress_reports_what_the_run_does() -> None:
    seen: list[TrainProgress] = []
    sae, report = train_sae(small(metrics_every=30), TensorSource(mixture(3_000)), seen.append)  # type: ignore[func-returns-value]
    assert [p.step for p in seen] == [30, 60, 80]
    assert seen == report.history
    assert seen[-1].fvu < seen[0].fvu
    assert all(0 < p.l0 <= 4 and 0 <= p.dead_share <= 1 and p.tokens_per_s > 0 for p in seen)
    assert seen[-1].eta_s == 0.0
    assert seen[0].eta_s > 0.0
    assert seen[-1].cosine > seen[0].cosine
    assert isinstance(sae, Sae)
    assert 0 <= report.waiting_seconds <= report.seconds


def test_aux_k_keeps_latents_alive_at_a_learning_rate_that_kills_them() -> None:
    x = mixture(20_000, d_in=32, n_directions=200, n_active=5)
    dead = {}
    for weight in (0.0, 1 / 32):
        config = small(n_tokens=150_000, aux_weight=weight, dead_after_tokens=3_000, k=5, learning_rate=3e-2)
        config = replace(config, d_in=32, d_sae=200, batch_size=500, buffer_tokens=10_000)
        _, report = train_sae(config, TensorSource(x))
        dead[weight] = report.history[-1].dead_share
    assert dead[0.0] > 0.08
    assert dead[1 / 32] < 0.5 * dead[0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_stop_the_run(bad: float) -> None:
    x = mixture(2_000)
    x[1999, 3] = bad
    with pytest.raises(ComputationFailed, match="nan or inf"):
        train_sae(small(buffer_tokens=2000), TensorSource(x))


def test_activations_beyond_float16_are_not_silently_made_infinite() -> None:
    x = mixture(2_000)
    x[5] = 1e6
    with pytest.raises(ComputationFailed, match="beyond the range"):
        train_sae(small(buffer_dtype="float16"), TensorSource(x))


def test_equal_activations_are_nothing_to_learn_from() -> None:
    with pytest.raises(ComputationFailed, match="all activations are equal"):
        train_sae(small(), TensorSource(torch.ones(1000, 16)))


def test_too_few_tokens_or_another_width_are_refused() -> None:
    with pytest.raises(InvalidSaeConfig, match="fewer than one batch"):
        train_sae(small(), TensorSource(mixture(249)))
    with pytest.raises(InvalidSaeConfig, match="d_in=8"):
        train_sae(small(), TensorSource(mixture(1000, d_in=8)))


def test_a_source_that_lies_about_its_width_or_length_is_refused() -> None:
    class Wrong:
        d_in = 16
        n_tokens = 1000

        def __init__(self, chunk: Tensor | None) -> None:
            self.chunk = chunk

        def read(self, start: int) -> Iterator[Tensor]:
            yield from [] if self.chunk is None else [self.chunk]

    with pytest.raises(InvalidSaeConfig, match="shape"):
        train_sae(small(), Wrong(torch.zeros(1000, 15)))
    with pytest.raises(InvalidSaeConfig, match="empty"):
        train_sae(small(), Wrong(None))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("k", 0),
        ("k", 49),
        ("learning_rate", -1e-3),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("n_tokens", 0),
        ("n_tokens", 249),
        ("batch_size", 0),
        ("buffer_tokens", -1),
        ("warmup_share", 1.5),
        ("decay_share", -0.1),
        ("aux_weight", -1.0),
        ("dead_after_tokens", 0),
        ("k_aux", 0),
        ("bandwidth", 0.0),
        ("metrics_every", 0),
    ],
)
def test_impossible_settings_are_refused_with_their_name(field: str, value: object) -> None:
    with pytest.raises(InvalidSaeConfig, match=field):
        small(**{field: value})


@pytest.mark.parametrize(("d_in", "d_sae"), [(0, 8), (8, 0), (8, -1)])
def test_impossible_widths_are_refused(d_in: int, d_sae: int) -> None:
    with pytest.raises(InvalidSaeConfig, match="d_sae"):
        TrainConfig("relu", d_in, d_sae, n_tokens=10_000)


def test_impossible_prefixes_are_refused_before_training() -> None:
    with pytest.raises(InvalidSaeConfig, match="prefixes"):
        train_sae(small("matryoshka", prefixes=(12, 50)), TensorSource(mixture(1000)))


def test_an_unknown_variant_or_buffer_type_is_refused() -> None:
    """Set past the type checker that runs in tests, as a JSON file or another process might."""
    for field, value in (("variant", "vanilla"), ("buffer_dtype", "int8")):
        config = small()
        object.__setattr__(config, field, value)
        with pytest.raises(InvalidSaeConfig, match=field):
            config.__post_init__()


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [learning_rate(step, 100, 1.0, 0.1, 0.2) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10:80] == [1.0] * 70
    assert all(a > b > 0 for a, b in pairwise(rates[80:]))
    assert rates[-1] == pytest.approx(1 / 21)
    assert [learning_rate(step, 5, 2.0, 0.0, 0.0) for step in range(5)] == [2.0] * 5
