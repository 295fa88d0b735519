"""Arrays and data frames of answers. pandas is imported when a frame is asked for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fulcrum.domain.errors import MissingDependency
from fulcrum.domain.results import DoseResponse, LatentAttribution, Prediction

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]

_LATENT = [
    ("latent", np.int64),
    ("score", np.float64),
    ("measured_effect", np.float64),
    ("max_activation", np.float64),
    ("n_tokens_active", np.int64),
]
_CHANGE = ("logit_before", "logit_after", "prob_before", "prob_after")


def latents_array(latents: Sequence[LatentAttribution]) -> Array:
    """One row for each latent, fields as in `LatentAttribution`."""
    rows = [
        (
            a.latent,
            a.score,
            np.nan if a.measured_effect is None else a.measured_effect,
            a.max_activation,
            a.n_tokens_active,
        )
        for a in latents
    ]
    return np.array(rows, dtype=_LATENT)


def effect_array(before: Prediction, after: Prediction) -> Array:
    """One row for each class, in the order of the class set."""
    width = max(len(n) for n in before.class_names)
    dtype = [("class_name", f"U{width}"), *((name, np.float64) for name in _CHANGE)]
    columns = (before.logits, after.logits, before.probs, after.probs)
    rows = [(name, *(float(c[i]) for c in columns)) for i, name in enumerate(before.class_names)]
    return np.array(rows, dtype=dtype)


def curve_array(response: DoseResponse) -> Array:
    """(n_gains, 2 + n_classes)."""
    return np.column_stack([response.gains, response.target_values, response.logits])


def latents_frame(latents: Sequence[LatentAttribution], labels: Mapping[int, str]) -> "pd.DataFrame":
    """Indexed by latent."""
    frame = _pandas().DataFrame(latents_array(latents)).set_index("latent")
    if labels:
        frame.insert(0, "label", [labels.get(a.latent, "") for a in latents])
    return frame


def effect_frame(before: Prediction, after: Prediction) -> "pd.DataFrame":
    """Indexed by class."""
    return _pandas().DataFrame(effect_array(before, after)).set_index("class_name")


def curve_frame(response: DoseResponse) -> "pd.DataFrame":
    """Indexed by gain."""
    pandas = _pandas()
    index = pandas.Index(response.gains, name="gain")
    frame = pandas.DataFrame(response.logits, index=index, columns=list(response.class_names))
    frame.insert(0, "target", response.target_values, allow_duplicates=True)
    return frame


def predictions_frame(
    names: Sequence[str], before: Sequence[Prediction], after: Sequence[Prediction] | None
) -> "pd.DataFrame":
    """One row for each image."""
    columns: dict[str, list[Any]] = {
        "image": list(names),
        "prediction": [p.top for p in before],
        "prob": [float(np.max(p.probs)) for p in before],
        "margin": [p.margin for p in before],
    }
    if after is not None:
        columns["prediction_after"] = [p.top for p in after]
        columns["prob_after"] = [float(np.max(p.probs)) for p in after]
        columns["margin_after"] = [p.margin for p in after]
        columns["flipped"] = [a.top != b.top for a, b in zip(before, after, strict=True)]
    return _pandas().DataFrame(columns)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise MissingDependency("tables need the package 'pandas'; `to_numpy` does without") from error
    return pandas
