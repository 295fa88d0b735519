"""`torchrun ... ranks_entry.py FOLDER VARIANT...`: one of several processes that train together.

Each writes weights and curves into FOLDER/VARIANT. `topk:23` ends after 23 steps with a checkpoint, and
`topk:23:on` goes on from there, into a folder of its own.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from tests.science.sae.drawn import mixture

from fulcrum.science.sae.storage import save_sae
from fulcrum.science.sae.training.config import TrainConfig
from fulcrum.science.sae.training.ranks import Ranks, torchrun_ranks
from fulcrum.science.sae.training.source import SharedSource, TensorSource, own_segments
from fulcrum.science.sae.training.trainer import train_sae


def config_of(variant):
    return TrainConfig(
        variant, 16, 48, n_tokens=20_000, k=4, batch_size=250, buffer_tokens=1500, learning_rate=5e-3,
        dead_after_tokens=600, early_stop=True, flat_gain=0.3, flat_windows=1, decay_share=0.3,
    )  # fmt: skip


class Counting(TensorSource):
    """Counts the tokens that were asked of it."""

    n_read = 0

    def read(self, start):
        for chunk in super().read(start):
            self.n_read += chunk.shape[0]
            yield chunk


def train(folder, variant, n_steps, ranks):
    source = Counting(mixture(3_000)[own_segments(3_000, 400, ranks)], chunk=100)
    shared = source if ranks.size == 1 else SharedSource(source, ranks, 400, 3_000)
    on_step = (lambda done, total: done != n_steps) if n_steps else None
    sae, report = train_sae(
        config_of(variant), shared, None, folder / "checkpoint", on_step=on_step, ranks=ranks
    )
    curves = [[p.step, p.fvu, p.loss, p.l0, p.dead_share, p.cosine] for p in report.history]
    return sae, {
        "curves": curves,
        "steps": report.steps,
        "n_read": source.n_read,
        "completed": report.completed,
    }


def write(folder, sae, found, ranks):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"found-{ranks.rank}.json").write_text(json.dumps(found))
    save_sae(sae, folder / f"sae-{ranks.rank}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torchrun_ranks("cpu") as ranks:
        assert isinstance(ranks, Ranks)
        for asked in sys.argv[2:]:
            variant, n_steps, on = (*asked.split(":"), "", "")[:3]
            folder = Path(sys.argv[1]) / asked.replace(":", "-")
            if on and ranks.is_first:
                shutil.copytree(
                    folder.with_name(f"{variant}-{n_steps}") / "checkpoint", folder / "checkpoint"
                )
            ranks.all_agree(True)
            write(folder, *train(folder, variant, 0 if on else int(n_steps or 0), ranks), ranks)
