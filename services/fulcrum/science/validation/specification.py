"""What is asked of a correction, frozen before anything is looked at."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from fulcrum.domain.errors import InvalidSettings
from fulcrum.science.validation.arrays import check_share


@dataclass(frozen=True)
class ProtectedGroup:
    """A group in which the NFR itself must stay below `margin`, e.g. column "sticker", value "none"."""

    column: str
    value: str
    margin: float = 0.01


@dataclass(frozen=True)
class Specification:
    """Margins, levels and sizes of one validation; `sha256` freezes it.

    Margins and effects are shares, not points. A margin of None, and `min_controls` 0, leave that gate out; a
    gate that is left out is named in the report.
    """

    alpha: float = 0.05  # one-sided for non-inferiority, two-sided for McNemar and intervals
    power: float = 0.8
    discordant_share: float = 0.05  # assumed before the run, for the minimum detectable effect
    min_gain: float = (
        0.02  # smallest net gain on unseen images of the failure mode that is worth a correction
    )
    harm_margin: float = 0.01  # NFR over all images
    clean_loss_margin: float | None = 0.01  # loss of accuracy on images without the failure mode
    protected_groups: tuple[ProtectedGroup, ...] = ()
    worst_group_margin: float | None = 0.05  # loss of accuracy of any group
    worst_group_columns: tuple[str, ...] | None = None  # None: every group column; "class" adds the classes
    min_group_size: int = 20  # smaller groups are shown without a verdict
    kl_p95_limit: float | None = 0.05  # nats, on images that should not move
    temperature: float = 1.0  # logits are divided by it before every softmax
    ece_margin: float | None = 0.02
    ece_bins: int = 15
    ece_min_images: int = 500
    min_controls: int = 100
    control_percentile: float = 95.0
    n_bootstrap: int = 2000
    seed: int = 0
    false_discovery: Literal["bh", "by"] = "bh"

    def __post_init__(self) -> None:
        for name in ("alpha", "discordant_share", "harm_margin", "min_gain"):
            check_share(name, getattr(self, name))
        for name in ("clean_loss_margin", "worst_group_margin", "ece_margin"):
            if getattr(self, name) is not None:
                check_share(name, getattr(self, name))
        for group in self.protected_groups:
            check_share(f"margin of protected group {group.column}={group.value}", group.margin)
        if not 0.5 <= self.power < 1:
            raise InvalidSettings(f"power={self.power} must lie in [0.5, 1)")
        if self.temperature <= 0 or (self.kl_p95_limit is not None and self.kl_p95_limit <= 0):
            raise InvalidSettings(
                f"temperature={self.temperature} and kl_p95_limit={self.kl_p95_limit} must be above 0"
            )
        if self.n_bootstrap < 2000:
            raise InvalidSettings(f"n_bootstrap={self.n_bootstrap}: at least 2000 resamples are needed")
        if not 50 <= self.control_percentile < 100:
            raise InvalidSettings(f"control_percentile={self.control_percentile} must lie in [50, 100)")
        if self.min_controls != 0 and self.min_controls < 100:
            raise InvalidSettings(
                f"min_controls={self.min_controls}: at least 100, or 0 to leave the gate out"
            )
        if self.min_group_size < 1 or self.ece_bins < 2 or self.ece_min_images < self.ece_bins:
            raise InvalidSettings(
                f"min_group_size={self.min_group_size} must be >= 1, ece_bins={self.ece_bins} >= 2 "
                f"and ece_min_images={self.ece_min_images} >= ece_bins"
            )
        if self.false_discovery not in ("bh", "by"):
            raise InvalidSettings(f"false_discovery={self.false_discovery!r} must be 'bh' or 'by'")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values under the field names."""
        content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), allow_nan=False))
        return content

    @property
    def sha256(self) -> str:
        """Identity: two runs are comparable only under the same specification."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
