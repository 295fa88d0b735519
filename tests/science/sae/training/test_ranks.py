"""Two processes that train together (gloo on CPU, started by torchrun) draw the curve of one alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.science.sae.drawn import mixture
from tests.science.sae.training import ranks_entry

from fulcrum.domain.errors import InvalidSaeConfig
from fulcrum.science.sae.storage import load_sae
from fulcrum.science.sae.training.ranks import ALONE, Ranks
from fulcrum.science.sae.training.source import SharedSource, TensorSource, own_segments
from fulcrum.science.sae.training.trainer import train_sae

ROOT = Path(__file__).resolve().parents[4]
VARIANTS = ("topk", "batch_topk", "matryoshka", "gated")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes came to, by variant; `topk-23` was stopped after 23 steps, `topk-23-on` went on from there."""
    folder = tmp_path_factory.mktemp("together")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         ranks_entry.__file__, str(folder), *VARIANTS, "topk:23", "topk:23:on"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'services'}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def found_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in (0, 1)]


def assert_same_curves(some: dict[str, Any], others: dict[str, Any]) -> None:
    one, two = torch.tensor(some["curves"]), torch.tensor(others["curves"])
    torch.testing.assert_close(one, two, rtol=2e-3, atol=2e-3)
    assert (some["steps"], some["completed"]) == (others["steps"], True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_draw_the_curve_of_one(variant: str, together: Path, tmp_path: Path) -> None:
    sae, one = ranks_entry.train(tmp_path, variant, 0, ALONE)
    two = found_in(together / variant)
    assert two[0]["curves"] == two[1]["curves"]
    assert_same_curves(two[0], one)
    weights = [load_sae(together / variant / f"sae-{rank}").state_dict() for rank in (0, 1)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
        torch.testing.assert_close(value, sae.state_dict()[name], rtol=0.02, atol=0.02, msg=name)
    # Each of them read half of the activations.
    assert all(found["n_read"] < 0.7 * one["n_read"] for found in two)


def test_one_process_goes_on_where_two_were_stopped(together: Path, tmp_path: Path) -> None:
    _, one = ranks_entry.train(tmp_path, "topk", 0, ALONE)
    stopped = found_in(together / "topk-23")
    assert [(f["steps"], f["completed"]) for f in stopped] == [(23, False)] * 2
    _, resumed = ranks_entry.train(together / "topk-23", "topk", 0, ALONE)
    assert_same_curves(resumed, one)


def test_two_processes_go_on_where_they_were_stopped_to_the_same_bits(together: Path) -> None:
    undisturbed, resumed = found_in(together / "topk"), found_in(together / "topk-23-on")
    assert [f["curves"] for f in resumed] == [f["curves"] for f in undisturbed]
    for rank in (0, 1):
        weights, expected = (
            load_sae(together / n / f"sae-{rank}").state_dict() for n in ("topk-23-on", "topk")
        )
        assert all(torch.equal(value, weights[name]) for name, value in expected.items())


class Pretended(Ranks):
    """One of several processes, which have all been asked before: what each would send is known."""

    def __init__(self, rank: int, others: list[torch.Tensor]) -> None:
        super().__init__(rank, len(others))
        self.others = others
        self.calls = 0

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        segment = rows.shape[0]
        at = self.calls * segment
        self.calls += 1
        assert torch.equal(self.others[self.rank][at : at + segment], rows)
        return torch.cat([other[at : at + segment] for other in self.others])


@pytest.mark.parametrize("start", [0, 1, 69, 70, 135, 499])
@pytest.mark.parametrize("size", [2, 3])
def test_all_get_everything_in_order_from_any_token_on(start: int, size: int) -> None:
    x = mixture(500)
    segment, first = 70, start // 70
    rounds = range(first - first % size, 8, size)

    def sent(rank: int) -> torch.Tensor:
        rows = torch.zeros(len(rounds) * segment, 16)
        for i, base in enumerate(rounds):
            if first <= base + rank < 8:
                part = x[(base + rank) * segment : (base + rank + 1) * segment]
                rows[i * segment : i * segment + len(part)] = part
        return rows

    others = [sent(rank) for rank in range(size)]
    for rank in range(size):
        ranks = Pretended(rank, others)
        mine = TensorSource(x[own_segments(500, segment, ranks)], chunk=33)
        shared = SharedSource(mine, ranks, segment, 500)
        assert torch.equal(torch.cat(list(shared.read(start))), x[start:])


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(InvalidSaeConfig, match="batch_size=250 cannot be shared by 3"):
        train_sae(ranks_entry.config_of("topk"), TensorSource(mixture(3_000)), ranks=Ranks(0, 3))


def test_alone_nothing_is_exchanged() -> None:
    x = torch.randn(3, 2)
    kept = x.clone()
    ALONE.mean_([x])
    assert torch.equal(x, kept)
    assert ALONE.gather(x) is x
    assert ALONE.smallest(x[0, 0]) == x[0, 0]
    assert not ALONE.all_agree(False)
    assert ALONE.is_first
