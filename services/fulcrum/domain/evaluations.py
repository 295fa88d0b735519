"""What an evaluation shows: its report, the images that it flipped, and what a data set can show before it is run."""

from dataclasses import dataclass, field
from typing import Any, Literal

from fulcrum.domain.records import EvaluationRecord

Outcome = Literal["still_right", "broken", "fixed", "still_wrong", "moved", "changed", "unchanged"]


@dataclass(frozen=True)
class SubjectChange:
    """One part of what the verdict belongs to that is not what it was."""

    part: str
    then: str
    now: str


@dataclass(frozen=True)
class Evaluation:
    """An evaluation with its whole report. It is stale while `changes` is not empty."""

    record: EvaluationRecord
    changes: tuple[SubjectChange, ...]
    report: dict[str, Any]


@dataclass(frozen=True)
class FlipFilter:
    """Images of a flip board: of an outcome, with values of columns ('column=value'; several must all hold).

    `changed_only`: only those whose answer is another one, whatever the outcome.
    """

    evaluation_id: str
    outcome: Outcome | None = None
    where: tuple[str, ...] = ()
    evaluated_only: bool = True
    changed_only: bool = False


@dataclass(frozen=True)
class FlippedImage:
    """A card of the flip board. Class names; `label` is None where there is none. `kl` in nats.

    `sets` are the judged image sets that it is in.
    """

    id: str
    split: str
    label: str | None
    base: str
    corrected: str
    outcome: Outcome
    target: bool
    evaluated: bool
    base_confidence: float
    corrected_confidence: float
    margin_before: float
    margin_after: float
    margin_change: float
    kl: float
    groups: dict[str, str] = field(default_factory=dict)
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConfusionDelta:
    """Corrected minus base confusion of the judged images: rows are labels, columns answers.

    `delta` is empty for more than 100 classes; `pairs` are the most frequent changes of answer.
    """

    class_names: tuple[str, ...]
    delta: tuple[tuple[int, ...], ...]
    pairs: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Slices:
    """The slice table, and the slices in which broken, fixed and moved images gather, as the report holds them."""

    slices: tuple[dict[str, Any], ...]
    broken: tuple[dict[str, Any], ...]
    fixed: tuple[dict[str, Any], ...]
    moved: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class EvaluationPlan:
    """What a split can show, before anything is run. Effects are shares; None where no effect can be shown.

    `next_look` is the number that a look of this version at this split would get; `n_looks` counts all looks at it.
    """

    n: int
    mde: float | None
    discordant_share: float
    images_for_harm: int
    can_pass_harm: bool
    n_looks: int
    next_look: int
    most_forward_images: int


@dataclass(frozen=True)
class Difference:
    """A number, gate or verdict that is not the same in both."""

    name: str
    then: Any
    now: Any


@dataclass(frozen=True)
class EvaluationComparison:
    """An evaluation beside another one, such as what its recomputation gave.

    `changes` are the parts of what the verdicts belong to that differ. The counts are of images in both tables whose
    answer differs, and of images in one table alone; all 0 for sweeps, which have no tables.
    """

    then_id: str
    now_id: str
    changes: tuple[SubjectChange, ...]
    differences: tuple[Difference, ...]
    n_images: int = 0
    n_base_differs: int = 0
    n_corrected_differs: int = 0
    n_only_then: int = 0
    n_only_now: int = 0
    max_margin_difference: float = 0.0  # of the corrected margins of images in both
