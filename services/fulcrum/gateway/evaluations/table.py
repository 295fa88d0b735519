"""The table of an evaluation's images, read from its columns."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulcrum.domain.errors import CorruptFile, InvalidRequest
from fulcrum.domain.evaluations import ConfusionDelta, FlipFilter, FlippedImage, Outcome
from fulcrum.store.artifacts import Artifacts

Columns = dict[str, NDArray[Any]]

# In the order of the numbers in the column `outcome`.
OUTCOMES: tuple[Outcome, ...] = (
    "still_right",
    "broken",
    "fixed",
    "still_wrong",
    "moved",
    "changed",
    "unchanged",
)
_GROUP, _SET, _LABELS = "group:", "set:", ("label", "class")
_MOST_CLASSES = 100


def read_columns(artifacts: Artifacts, sha256: str) -> Columns:
    """All columns. Raises UnknownArtifact, CorruptArtifact, CorruptFile."""
    try:
        with np.load(io.BytesIO(artifacts.read_bytes(sha256)), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (ValueError, OSError, KeyError, EOFError) as error:
        raise CorruptFile(f"the table of the evaluation cannot be read: {error}") from error


def chosen(columns: Columns, wanted: FlipFilter, class_names: Sequence[str]) -> NDArray[np.int64]:
    """Rows, those whose margin changed most first. Raises InvalidRequest for a column that is not there.

    The label is a column too, `label` or, as reports call it, `class`; `set` names an image set that was judged.
    """
    keep = columns["evaluated"].copy() if wanted.evaluated_only else np.ones(len(columns["id"]), dtype=bool)
    if wanted.changed_only:
        keep &= columns["base_prediction"] != columns["corrected_prediction"]
    if wanted.outcome is not None:
        keep &= columns["outcome"] == OUTCOMES.index(wanted.outcome)
    for text in wanted.where:
        name, equals, value = text.partition("=")
        if equals and name == "set" and _SET + value in columns:
            keep &= columns[_SET + value]
            continue
        column: NDArray[Any] | None
        if name in _LABELS:
            column = np.array(
                [class_names[i] if i >= 0 else "" for i in columns["label"].tolist()], dtype=np.str_
            )
        else:
            column = columns.get(_GROUP + name.removeprefix("group_"))
        if not equals or column is None:
            there = sorted({"label", *(n.removeprefix(_GROUP) for n in columns if n.startswith(_GROUP))})
            there += sorted(f"set={n.removeprefix(_SET)}" for n in columns if n.startswith(_SET))
            raise InvalidRequest(f"where is {text[:80]!r}: expected 'column=value' with a column of {there}")
        keep &= column == value
    rows = np.flatnonzero(keep)
    change = np.abs(columns["corrected_margin"] - columns["base_margin"])[rows]
    return rows[np.lexsort((columns["id"][rows], -change))]


def cards(columns: Columns, rows: NDArray[np.int64], class_names: Sequence[str]) -> tuple[FlippedImage, ...]:
    """These rows as cards."""
    groups = [n for n in columns if n.startswith(_GROUP)]
    sets = [n for n in columns if n.startswith(_SET)]

    def card(i: int) -> FlippedImage:
        label = int(columns["label"][i])
        before, after = (float(columns[f"{k}_margin"][i]) for k in ("base", "corrected"))
        return FlippedImage(
            id=str(columns["id"][i]),
            split=str(columns["split"][i]),
            label=None if label < 0 else class_names[label],
            base=class_names[int(columns["base_prediction"][i])],
            corrected=class_names[int(columns["corrected_prediction"][i])],
            outcome=OUTCOMES[int(columns["outcome"][i])],
            target=bool(columns["target"][i]),
            evaluated=bool(columns["evaluated"][i]),
            base_confidence=float(columns["base_confidence"][i]),
            corrected_confidence=float(columns["corrected_confidence"][i]),
            margin_before=before,
            margin_after=after,
            margin_change=after - before,
            kl=float(columns["kl"][i]),
            groups={n.removeprefix(_GROUP): str(columns[n][i]) for n in groups if columns[n][i] != ""},
            sets=tuple(n.removeprefix(_SET) for n in sets if columns[n][i]),
        )

    return tuple(card(int(i)) for i in rows)


def confusion_delta(
    columns: Columns, class_names: Sequence[str], pairs: Sequence[dict[str, Any]]
) -> ConfusionDelta:
    """The matrix of the judged labelled images; `pairs` come from the report."""
    n = len(class_names)
    delta: tuple[tuple[int, ...], ...] = ()
    if n <= _MOST_CLASSES:
        known = columns["evaluated"] & (columns["label"] >= 0)
        labels = columns["label"][known]
        counts = [
            np.bincount(labels * n + columns[f"{k}_prediction"][known], minlength=n * n)
            for k in ("corrected", "base")
        ]
        delta = tuple(tuple(int(v) for v in row) for row in (counts[0] - counts[1]).reshape(n, n))
    return ConfusionDelta(tuple(class_names), delta, tuple(pairs))


def as_csv(columns: Columns) -> bytes:
    """All columns and rows as CSV; numbers as Python writes them, so that none loses a bit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(_plain(c) for c in columns.values()), strict=True))
    return text.getvalue().encode()


def _plain(column: NDArray[Any]) -> list[Any]:
    values: list[Any] = column.tolist()
    # A cell that starts so is a formula to a spreadsheet.
    return [f"'{v}" if isinstance(v, str) and v[:1] in ("=", "+", "-", "@") else v for v in values]
