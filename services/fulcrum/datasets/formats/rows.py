"""One row of a manifest, whatever its file format, to one sample."""

import json
import math
from collections.abc import Mapping
from typing import Any

from fulcrum.datasets.formats.paths import relative_source
from fulcrum.datasets.samples import Sample
from fulcrum.domain.errors import InvalidDataset

_OPTIONAL = ("label", "split", "pair_id", "licence")
_SPELLINGS = {"license": "licence"}


def sample_from_row(row: Mapping[str, Any], where: str, *, relative: bool = True) -> Sample:
    """Columns `id, source` and optional `label, split, pair_id, mask_path, licence, group_*, covariate_*`.

    Empty cells are absent values; a cell of spaces only is an error where it would become a label.
    Unknown columns go to `metadata`. `where` ("manifest.csv line 7") starts every message. Raises
    InvalidDataset.
    """
    known: dict[str, str | None] = {}
    groups: dict[str, str] = {}
    covariates: dict[str, float] = {}
    metadata: dict[str, str] = {}
    for column, value in row.items():
        text = _text(value)
        if text is None:
            continue
        name = _SPELLINGS.get(column, column)
        if name == "label" and not text.strip():
            raise InvalidDataset(f"{where}: the label is blank; leave the cell empty where there is none")
        if name in ("id", "source", "mask_path", *_OPTIONAL):
            known[name] = text
        elif name.startswith("group_") and len(name) > len("group_"):
            groups[name.removeprefix("group_")] = text
        elif name.startswith("covariate_") and len(name) > len("covariate_"):
            covariates[name.removeprefix("covariate_")] = _number(text, column, where)
        else:
            metadata[name] = text
    for column in ("id", "source"):
        if not (known.get(column) or "").strip():
            raise InvalidDataset(f"{where}: {column!r} is empty")
    source, mask = str(known["source"]), known.get("mask_path")
    return Sample(
        id=str(known["id"]),
        source=relative_source(source, where) if relative else source,
        label=known.get("label"),
        split=known.get("split"),
        groups=groups,
        covariates=covariates,
        pair_id=known.get("pair_id"),
        mask_path=None if mask is None else relative_source(mask, where),
        licence=known.get("licence"),
        metadata=metadata,
    )


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None  # how data frames write an absent cell into Parquet
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(value, default=str, sort_keys=True)


def _number(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise InvalidDataset(f"{where}: {column} is {text!r}, which is no number") from error
    if not math.isfinite(value):
        raise InvalidDataset(f"{where}: {column} is {text!r}; leave the cell empty where it is unknown")
    return value
