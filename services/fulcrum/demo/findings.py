"""The story's numbers, from what the platform kept: the report of the evaluation and its table of images."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from fulcrum.client.answers import Predictions
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.errors import ComputationFailed

# Float32 in batches of other sizes; the demo's logits are about 10.
MAX_LOGIT_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class Findings:
    """The story's findings. Shares; top-1 of the twins of the confirm split (`n_confirm` pairs).

    `attacked_as_word`: share of the attacked errors that are exactly the written word. `mcnemar_p` is exact, of the
    attacked twins before and after. `nfr_upper95`: upper 95 % bound of the share broken among all confirm images.
    `control_p95_gain`: 95th percentile of the gain of 100 corrections on matched latents.
    """

    n_confirm: int
    clean_top1: float
    attacked_top1: float
    attacked_as_word: float
    corrected_clean_top1: float
    corrected_attacked_top1: float
    mcnemar_p: float
    nfr_upper95: float
    control_p95_gain: float
    verdict: str


@dataclass(frozen=True)
class Agreement:
    """Answers over HTTP and gRPC beside those that a worker computed for the evaluation.

    `n_different`: answers (before or after) whose class differs; `max_logit_difference`: how far a logit of the label
    over the best other class lies apart at most.
    """

    n_images: int
    n_different: int
    max_logit_difference: float


@dataclass(frozen=True)
class ImageTable:
    """The table of an evaluation's images beside the drawn world that they come from; `rows` by image number."""

    world: Dataset
    columns: dict[str, NDArray[Any]]
    class_names: tuple[str, ...]
    rows: dict[int, int]

    @classmethod
    def read(cls, content: bytes, world: Dataset, class_names: Sequence[str]) -> "ImageTable":
        """From Parquet."""
        table = pyarrow.parquet.read_table(io.BytesIO(content))
        columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
        rows = {world.number(id): row for row, id in enumerate(columns["id"])}
        return cls(world, columns, tuple(class_names), rows)

    def of(self, name: str, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """A column at these images."""
        return self.columns[name][[self.rows[int(n)] for n in numbers]]

    def numbers(self, kind: str, split: str) -> NDArray[np.int64]:
        """Images of the table with a sticker of this kind; for "clean" the twins of attacked ones without any."""
        kinds, pairs = self.world.groups["sticker_kind"], self.world.pair_ids
        chosen = kinds == kind
        if kind == "clean":
            chosen = (kinds == "none") & np.isin(pairs, pairs[kinds == "attack"])
        known = np.zeros(len(self.world), dtype=bool)
        known[list(self.rows)] = True
        return np.flatnonzero(chosen & known & (self.world.splits == split)).astype(np.int64)

    def right(self, name: str, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the answers "base" or "corrected" are the labels."""
        matches: NDArray[np.bool_] = self.of(f"{name}_prediction", numbers) == self.of("label", numbers)
        return matches

    def as_word(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the unedited model answers with the written word."""
        said = [self.class_names[int(p)] for p in self.of("base_prediction", numbers)]
        written = [self.world.samples[int(n)].metadata["sticker_word"] for n in numbers]
        return np.array([a == b for a, b in zip(said, written, strict=True)], dtype=bool)

    def clearest_failure(self) -> int:
        """An attacked image of discover that is taken for its word with the middling margin: typical, not extreme."""
        attacked = self.numbers("attack", "discover")
        failed = attacked[self.as_word(attacked)]
        if not len(failed):
            raise ComputationFailed("the demo model reads no sticker: it was trained badly")
        order = np.argsort(-self.of("base_margin", failed), kind="stable")
        return int(failed[order[len(failed) // 2]])

    def answer(self, name: str, number: int) -> str:
        """The answer "base" or "corrected" to one image."""
        return self.class_names[int(self.columns[f"{name}_prediction"][self.rows[number]])]


def findings_of(report: dict[str, Any], table: ImageTable) -> Findings:
    """Raises ComputationFailed when the evaluation has no failure mode or no matched controls."""
    target, overall = report["target"], report["overall"]
    matched = [c for c in report["controls"] if c["kind"] == "matched_latents"]
    if target is None or not matched:
        raise ComputationFailed("no matched controls could be drawn for the demo correction")
    attacked, clean = table.numbers("attack", "confirm"), table.numbers("clean", "confirm")
    wrong = attacked[~table.right("base", attacked)]
    return Findings(
        n_confirm=target["n"],
        clean_top1=float(table.right("base", clean).mean()),
        attacked_top1=target["accuracy_before"],
        attacked_as_word=float(table.as_word(wrong).mean()) if len(wrong) else 0.0,
        corrected_clean_top1=float(table.right("corrected", clean).mean()),
        corrected_attacked_top1=target["accuracy_after"],
        mcnemar_p=target["p"],
        nfr_upper95=overall["nfr_bound"]["upper"],
        control_p95_gain=matched[0]["p95"],
        verdict=report["verdict"]["name"],
    )


def agreement_of(table: ImageTable, numbers: NDArray[np.int64], served: Predictions) -> Agreement:
    """Raises ComputationFailed where the services and the workers disagree."""
    n_different, largest = 0, 0.0
    for number, pair in zip(numbers, served.pairs, strict=True):
        row = table.rows[int(number)]
        label = int(table.columns["label"][row])
        for name, answer in zip(("base", "corrected"), pair, strict=True):
            logits = np.asarray(answer.logits, dtype=np.float64)
            n_different += int(logits.argmax()) != int(table.columns[f"{name}_prediction"][row])
            margin = logits[label] - np.delete(logits, label).max()
            largest = max(largest, abs(margin - float(table.columns[f"{name}_margin"][row])))
    if n_different or largest > MAX_LOGIT_DIFFERENCE:
        raise ComputationFailed(
            f"inference and workers disagree: {n_different} of {2 * len(numbers)} answers differ, margins by up to "
            f"{largest:.2g} (at most {MAX_LOGIT_DIFFERENCE:g} is rounding)"
        )
    return Agreement(len(numbers), n_different, largest)
