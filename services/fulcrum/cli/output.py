"""What the commands print: one JSON object, or tables for a person."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.results import Prediction

# Results go to stdout, progress to stderr, so that `--json` can be piped.
out = Console()
err = Console(stderr=True)


def plain(value: Any) -> Any:
    """JSON-ready values; infinities become None, because JSON has no word for them."""
    match value:
        case HookPoint():
            return str(value)
        case Path():
            return str(value)
        case np.ndarray():
            return plain(value.tolist())
        case np.generic():
            return plain(value.item())
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(k): plain(v) for k, v in value.items()}
        case str() | int() | bool() | None:
            return value
        case Sequence() | set() | frozenset():
            return [plain(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        content = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Prediction):
            content |= {"top": value.top, "runner_up": value.runner_up, "margin": plain(value.margin)}
        return content
    raise TypeError(f"no JSON for {type(value)}")


def emit_json(value: Any) -> None:
    """One object on stdout."""
    print(json.dumps(plain(value), allow_nan=False), flush=True)  # what reads it may wait while we serve on


def prediction_table(
    title: str, prediction: Prediction, after: Prediction | None = None, n: int = 8
) -> Table:
    """Classes by probability; with `after`, both columns of one comparison."""
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("class")
    table.add_column("logit", justify="right")
    table.add_column("prob", justify="right")
    if after is not None:
        table.add_column("logit after", justify="right")
        table.add_column("prob after", justify="right")
    for i in np.argsort(-prediction.logits, kind="stable")[:n]:
        name = prediction.class_names[i]
        row = [name, f"{prediction.logits[i]:.2f}", f"{prediction.probs[i]:.1%}"]
        if after is not None:
            row += [f"{after.logits[i]:.2f}", f"{after.probs[i]:.1%}"]
        best = name == (prediction if after is None else after).top
        table.add_row(*row, style="bold green" if best else None)
    return table
