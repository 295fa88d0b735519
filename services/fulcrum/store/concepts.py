"""What latents stand for, with all labels that they had."""

import dataclasses
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, ForeignKey, Index, insert, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain.errors import (
    AlreadyExists,
    InvalidRequest,
    NothingToReview,
    StaleVersion,
    UnknownConcept,
)
from fulcrum.domain.labels import EarlierLabel, LabelReview, LabelSource, ReviewDecision, label_before
from fulcrum.domain.records import ConceptRecord, Page
from fulcrum.store.columns import Base, checked
from fulcrum.store.registry import InProject, unique_while_alive
from fulcrum.store.repository import LivingRepository

_FEW: Final = 500  # latents in one statement
_LABEL_FIELDS: Final = (
    "label", "label_source", "label_score", "note", "created_by", "created_at",
    "review", "reviewed_by", "reviewed_at", "review_note",
)  # fmt: skip


class ConceptRow(InProject, Base):
    """The current label of a latent; `created_by` and `created_at` are the label's."""

    __tablename__ = "concepts"
    __table_args__ = (
        unique_while_alive("concepts", "sae_id", "latent"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "sae_id", "created_at", "id"),
        Index(None, "sae_id", "review", "created_at", "id"),
    )
    sae_id: Mapped[str] = mapped_column(ForeignKey("saes.id"))
    latent: Mapped[int]
    label: Mapped[str]
    label_source: Mapped[str]
    label_score: Mapped[float | None]
    note: Mapped[str]
    review: Mapped[str | None]
    reviewed_by: Mapped[str | None] = mapped_column(ForeignKey("users.id"))
    reviewed_at: Mapped[datetime | None]
    review_note: Mapped[str] = mapped_column(server_default="")
    history: Mapped[list[Any]]


class Labelled(NamedTuple):
    """A label without its history."""

    label: str
    label_source: LabelSource
    label_score: float | None
    review: LabelReview | None


class Concepts(LivingRepository[ConceptRecord]):
    """One record for each labelled latent of an SAE."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, ConceptRow, ConceptRecord, UnknownConcept, "concept")

    def _describe(self, record: Any) -> str:
        return f"a concept of latent {record.latent} of SAE {record.sae_id}"

    def by_latent(self, sae_id: str, latent: int) -> ConceptRecord | None:
        """What is recorded about a latent, None if nothing is."""
        c = self._table.c
        return self._one(c.sae_id == checked("sae_id", sae_id), c.latent == checked("latent", latent))

    def search(
        self, words: str, *, limit: int = 50, cursor: str | None = None, **filters: Any
    ) -> Page[ConceptRecord]:
        """Concepts with `words` somewhere in label or note, whatever the case of ASCII letters."""
        c = self._table.c
        words = checked("words", words)
        found = or_(c.label.icontains(words, autoescape=True), c.note.icontains(words, autoescape=True))
        return self._page(self._filtered(filters).where(found), limit, cursor)

    def of_latents(self, sae_id: str, latents: Collection[int] | None = None) -> dict[int, ConceptRecord]:
        """What is recorded about latents (None: all) of an SAE, by latent; those without a record are left out."""
        c = self._table.c
        query = select(self._table).where(c.sae_id == checked("sae_id", sae_id), *self._alive())
        if latents is not None:
            if len(latents) > _FEW:
                raise InvalidRequest(f"{len(latents)} latents at once: at most {_FEW} are looked up")
            query = query.where(c.latent.in_([checked("latent", n) for n in latents]))
        found = (self._from_row(row) for row in self._connection.execute(query))
        return {concept.latent: concept for concept in found}

    def labels(self, sae_id: str) -> dict[int, Labelled]:
        """Every label of an SAE by latent, quickly: an SAE has tens of thousands."""
        c = self._table.c
        query = select(c.latent, c.label, c.label_source, c.label_score, c.review).where(
            c.sae_id == checked("sae_id", sae_id), *self._alive()
        )
        return {row.latent: Labelled(*row[1:]) for row in self._connection.execute(query)}

    def put_auto(self, records: Sequence[ConceptRecord]) -> int:
        """Labels that a program found; how many were written. A person's label stays, also one that was taken back,
        and so does a record that says the same already.

        Raises AlreadyExists or StaleVersion when somebody labels one of them at this moment: do it again.
        """
        n_written = 0
        for start in range(0, len(records), _FEW):
            part = records[start : start + _FEW]
            of_saes = {
                sae_id: self.of_latents(sae_id, [r.latent for r in part if r.sae_id == sae_id])
                for sae_id in {r.sae_id for r in part}
            }
            new = [r for r in part if r.latent not in of_saes[r.sae_id]]
            if new:
                # In one statement: one by one, an SAE's labels would hold up other writers for seconds.
                with self._constraints("a concept of one of these latents", {}):
                    self._write(insert(self._table).values([self._values_of(_first(r)) for r in new]))
            n_written += len(new)
            for record in part:
                before = of_saes[record.sae_id].get(record.latent)
                if before is None or before.label_source == "person":
                    continue
                if (before.label, before.label_score) != (record.label, record.label_score):
                    # A person who is faster than this statement makes it fail rather than lose.
                    self.put(record, before.version)
                    n_written += 1
        return n_written

    def put(self, record: ConceptRecord, expected_version: int | None = None) -> ConceptRecord:
        """Label a latent; what was there before goes to the front of `history`.

        The id stays the first one. `expected_version` None accepts whatever is there, 0 nothing only.
        Raises StaleVersion when it is another one, NotFound for an unknown SAE.
        """
        before = self.by_latent(record.sae_id, record.latent)
        if before is None:
            if expected_version:
                raise StaleVersion(
                    f"latent {record.latent} of SAE {record.sae_id} has no concept yet, "
                    f"so not version {expected_version}"
                )
            try:
                return self.add(_first(record))
            except AlreadyExists:
                before = self.by_latent(record.sae_id, record.latent)  # somebody else was first
                if before is None:
                    raise
        # What was read is what goes to the history: compare with its version also when the caller does not care.
        for _ in range(100):
            if expected_version is not None and before.version != expected_version:
                raise StaleVersion(
                    f"the concept of latent {record.latent} has version {before.version}, "
                    f"not {expected_version}: read it again"
                )
            values = {name: getattr(record, name) for name in _LABEL_FIELDS}
            values["history"] = (_earlier(before), *before.history)
            try:
                self._change(before.id, before.version, self._values(values))
            except StaleVersion:
                if expected_version is not None:
                    raise
                before = self.get(before.id)
            else:
                return self.get(before.id)
        raise StaleVersion(f"the concept of latent {record.latent} changes all the time: try again")

    def review(
        self, concept: ConceptRecord, decision: ReviewDecision, *, by: str, at: datetime, note: str = ""
    ) -> ConceptRecord:
        """Confirm or reject a proposed label as it was read. A rejected one goes to the front of `history`, and the
        label before it comes back from there as it was.

        Raises NothingToReview for a label that is not proposed, StaleVersion when it changed since, UnknownConcept.
        """
        if concept.review != "proposed":
            raise NothingToReview(_why_not(concept))
        verdict: dict[str, Any] = {"reviewed_by": by, "reviewed_at": at, "review_note": note}
        if decision == "confirm":
            self._change(concept.id, concept.version, self._values({"review": "confirmed"} | verdict))
            return self.get(concept.id)
        rejected = dataclasses.replace(_earlier(concept), review="rejected", **verdict)
        history = list(concept.history)
        place = label_before(history, concept.created_by)
        if place is None:
            # As if a program had found nothing: the next description may say what it finds.
            nothing = EarlierLabel("", "auto", None, "", by, at, concept.version)
            values = {name: getattr(nothing, name) for name in _LABEL_FIELDS}
        else:
            values = _again(history.pop(place))
        values["history"] = (rejected, *history)
        self._change(concept.id, concept.version, self._values(values))
        return self.get(concept.id)


def _earlier(concept: ConceptRecord) -> EarlierLabel:
    values = {name: getattr(concept, name) for name in _LABEL_FIELDS}
    return EarlierLabel(**values, version=concept.version)


def _again(earlier: EarlierLabel) -> dict[str, Any]:
    values = {name: getattr(earlier, name) for name in _LABEL_FIELDS}
    if earlier.label_source == "person" and earlier.review is None:
        values["review"] = "proposed"  # written before labels were reviewed
    return values


def _why_not(concept: ConceptRecord) -> str:
    what = f"label {concept.label[:80]!r} of latent {concept.latent}"
    if concept.review is None:
        return f"{what} is one that a program found: only a person's label is reviewed"
    return f"{what} is {concept.review} already: only a proposed one is reviewed"


def _first(record: ConceptRecord) -> ConceptRecord:
    values = {name: getattr(record, name) for name in record.__dataclass_fields__}
    return ConceptRecord(**values | {"history": (), "version": 1})
