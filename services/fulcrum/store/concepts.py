"""What latents stand for, with all labels that they had."""

from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Connection, ForeignKey, Index, insert, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain import codec
from fulcrum.domain.errors import AlreadyExists, InvalidRequest, StaleVersion, UnknownConcept
from fulcrum.domain.records import ConceptRecord, Page
from fulcrum.store.columns import Base, checked
from fulcrum.store.registry import InProject, unique_while_alive
from fulcrum.store.repository import LivingRepository

_FEW: Final = 500  # latents in one statement
LABEL_FIELDS = ("label", "label_source", "label_score", "note", "created_by", "created_at")


class ConceptRow(InProject, Base):
    """The current label of a latent; `created_by` and `created_at` are the label's."""

    __tablename__ = "concepts"
    __table_args__ = (
        unique_while_alive("concepts", "sae_id", "latent"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "sae_id", "created_at", "id"),
    )
    sae_id: Mapped[str] = mapped_column(ForeignKey("saes.id"))
    latent: Mapped[int]
    label: Mapped[str]
    label_source: Mapped[str]
    label_score: Mapped[float | None]
    note: Mapped[str]
    history: Mapped[list[Any]]


class Labelled(NamedTuple):
    """A label without its history."""

    label: str
    label_source: Literal["auto", "person"]
    label_score: float | None


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
        query = select(c.latent, c.label, c.label_source, c.label_score).where(
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
            earlier = {name: codec.to_json(getattr(before, name)) for name in LABEL_FIELDS}
            values = {name: getattr(record, name) for name in LABEL_FIELDS}
            values["history"] = [earlier | {"version": before.version}, *before.history]
            try:
                self._change(before.id, before.version, self._values(values))
            except StaleVersion:
                if expected_version is not None:
                    raise
                before = self.get(before.id)
            else:
                return self.get(before.id)
        raise StaleVersion(f"the concept of latent {record.latent} changes all the time: try again")


def _first(record: ConceptRecord) -> ConceptRecord:
    values = {name: getattr(record, name) for name in record.__dataclass_fields__}
    return ConceptRecord(**values | {"history": (), "version": 1})
