"""Words for what a latent stands for, and what colleagues think of them.

A person's label is proposed until somebody else confirms or rejects it; one that a program found is never reviewed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

LabelSource = Literal["auto", "person"]
LabelReview = Literal["proposed", "confirmed", "rejected"]
ReviewDecision = Literal["confirm", "reject"]


@dataclass(frozen=True)
class EarlierLabel:
    """A label that a latent had, with its review; never changed. `version` is that of the concept when it ended.

    `review` is None for what a program found. A label that was replaced while it waited stays "proposed".
    """

    label: str
    label_source: LabelSource
    label_score: float | None
    note: str
    created_by: str
    created_at: datetime
    version: int
    review: LabelReview | None = None
    reviewed_by: str | None = None
    reviewed_at: datetime | None = None
    review_note: str = ""


def label_before(history: Sequence[EarlierLabel], author: str) -> int | None:
    """Where in `history` (newest first) the label stands that comes back when the one by `author` is rejected.

    What was rejected does not come back, nor what the same author proposed on the way to the rejected label.
    None: no label is left.
    """
    for place, earlier in enumerate(history):
        own_draft = earlier.review == "proposed" and earlier.created_by == author
        if earlier.review != "rejected" and not own_draft:
            return place
    return None
