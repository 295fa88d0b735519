"""What imports keep before anything names it, so that nothing of one that failed stays for ever.

An import notes the hash of each image, mask and part *before* it looks whether these bytes are there. When it
succeeds, its manifest names them and its notes go; when it has failed or was cancelled long ago, its notes are doomed,
and some time later what no other import has noted and nobody names is removed. Who notes takes the doomed notes of the
hash away, and who removes locks them, so of the two the later one sees what the earlier one did: a content that is
noted again is not removed, and one that was removed is not taken to be there.

What a shard of such an import found must not be used again, since it stands for images that may be gone: the results
are forgotten when the notes are doomed, and jobs that hold them begin anew when they are tried again.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Table,
    and_,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain.jobs import FINISHED
from fulcrum.store.columns import Base
from fulcrum.store.job_tasks import RESULTS
from fulcrum.store.jobs import TASKS, JobRow
from fulcrum.store.repository import Access

_FEW = 300  # rows in one statement: both databases bound the number of its values
_WITHOUT_RESULT = ("failed", "cancelled")
_JOBS = cast(Table, JobRow.__table__)


class ImportContentRow(Base):
    """A content, and an import that noted it: several may stand on the same."""

    __tablename__ = "import_contents"
    __table_args__ = (Index(None, "job_id"), Index(None, "doomed_at"))
    sha256: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    doomed_at: Mapped[datetime | None]


class ImportContents(Access):
    """Notes by the hash of the content."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, ImportContentRow, "noted content")

    def note(self, job_id: str, hashes: Iterable[str]) -> None:
        """These contents are going to be kept, or relied on, by an import. Look whether they are there afterwards."""
        c = self._table.c
        for some in _in_order(hashes):
            self._remove(and_(c.sha256.in_(some), c.doomed_at.is_not(None)))
        self._put(job_id, hashes, None)

    def release(self, hashes: Iterable[str]) -> None:
        """Records are going to name these contents: put them afterwards, whether they are there or not."""
        for some in _in_order(hashes):
            self._remove(self._table.c.sha256.in_(some))

    def release_job(self, job_id: str) -> None:
        """All that an import noted is named by its manifest now."""
        self._remove(self._table.c.job_id == job_id)

    def left_by(self, before: datetime) -> list[str]:
        """Imports that failed or were cancelled `before` a time, and whose notes are not doomed yet."""
        c = self._table.c
        failed = select(_JOBS.c.id).where(
            _JOBS.c.state.in_(_WITHOUT_RESULT), _JOBS.c.finished_at < before, _JOBS.c.kind == "import_dataset"
        )
        left = select(c.job_id).where(c.doomed_at.is_(None), c.job_id.in_(failed)).distinct()
        return sorted(self._connection.execute(left).scalars())

    def doom(self, job_id: str, before: datetime, at: datetime) -> int:
        """Dooms what an import left that still counts as failed `before` a time; how many images and masks it noted.

        One import in one transaction: whoever locks an import and then contents must not wait for another import.
        """
        parts = self._begin_anew(job_id, before)
        if parts is None:
            return 0
        c = self._table.c
        for some in _in_order(parts):
            self._write(RESULTS.delete().where(RESULTS.c.sha256.in_(some)))
        mine = and_(c.job_id == job_id, c.doomed_at.is_(None))
        noted = self._locked(mine) - parts
        self._write(update(self._table).where(mine).values(doomed_at=at))
        self._put(job_id, parts, at)
        return len(noted)

    def due(self, before: datetime, slack: timedelta, limit: int) -> list[str]:
        """Contents doomed by all who noted them `before` a time, and by `slack` before the oldest import began that
        is not finished.
        """
        until = self._until(before, slack)
        c, other = self._table.c, self._table.alias()
        stands = select(other.c.sha256).where(other.c.sha256 == c.sha256, _stands(other.c.doomed_at, until))
        query = select(c.sha256).where(c.doomed_at < until, ~stands.exists()).distinct()
        return list(self._connection.execute(query.order_by(c.sha256).limit(limit)).scalars())

    def take(self, hashes: Sequence[str], before: datetime, slack: timedelta) -> set[str]:
        """Those that are due, without their notes now: remove what nobody names before the transaction ends."""
        c, taken = self._table.c, set()
        # Before unfinished imports are looked for: one that is tried again in between is then seen by one of the two.
        doomed = select(c.sha256).where(c.doomed_at.is_not(None))
        holding = (
            select(TASKS.c.job_id)
            .join(_JOBS, _JOBS.c.id == TASKS.c.job_id)
            .where(TASKS.c.result_sha256.in_(doomed), _JOBS.c.state.in_(_WITHOUT_RESULT))
            .distinct()
        )
        for id in sorted(self._connection.execute(holding).scalars().all()):
            self._begin_anew(id)
        until = self._until(before, slack)
        for some in _in_order(hashes):
            found = self._locked(and_(c.sha256.in_(some), c.doomed_at < until))
            # After the lock: who noted one of them before has committed that by now.
            stands = select(c.sha256).where(c.sha256.in_(some), _stands(c.doomed_at, until))
            taken |= found - set(self._connection.execute(stands).scalars())
        self.release(taken)
        return taken

    def _until(self, before: datetime, slack: timedelta) -> datetime:
        running = select(func.min(_JOBS.c.created_at)).where(
            _JOBS.c.kind == "import_dataset", _JOBS.c.state.not_in(FINISHED)
        )
        oldest: datetime | None = self._connection.execute(running).scalar_one()
        return before if oldest is None else min(before, oldest - slack)

    def _begin_anew(self, job_id: str, before: datetime | None = None) -> set[str] | None:
        """Makes a failed job forget its shards; their results. None where it is at work again or was since."""
        row = self._connection.execute(
            select(_JOBS.c.state, _JOBS.c.finished_at).where(_JOBS.c.id == job_id).with_for_update()
        ).one()
        if row.state not in _WITHOUT_RESULT or (before is not None and row.finished_at >= before):
            return None
        t = TASKS.c
        mine = select(t.result_sha256).where(t.job_id == job_id, t.result_sha256.is_not(None))
        parts = set(self._connection.execute(mine).scalars())
        self._write(delete(TASKS).where(t.job_id == job_id, t.stage != "plan"))
        self._write(update(TASKS).where(t.job_id == job_id).values(state="ended"))
        counts = {"n_shards": 0, "n_shards_done": 0, "n_shards_reused": 0}
        self._write(update(_JOBS).where(_JOBS.c.id == job_id).values(**counts))
        return parts

    def _put(self, job_id: str, hashes: Iterable[str], doomed_at: datetime | None) -> None:
        make = sqlite.insert if self._connection.dialect.name == "sqlite" else postgresql.insert
        values = {"job_id": job_id, "doomed_at": doomed_at}
        for some in _in_order(hashes):
            rows = make(self._table).values([{"sha256": s, **values} for s in some])
            self._write(rows.on_conflict_do_update(index_elements=["sha256", "job_id"], set_=values))

    def _locked(self, chosen: ColumnElement[bool]) -> set[str]:
        """Hashes of rows that are changed next, locked in one order."""
        c = self._table.c
        query = select(c.sha256).where(chosen).order_by(c.sha256, c.job_id).with_for_update()
        return set(self._connection.execute(query).scalars())

    def _remove(self, chosen: ColumnElement[bool]) -> None:
        self._locked(chosen)
        self._write(delete(self._table).where(chosen))


def _stands(doomed_at: ColumnElement[datetime | None], until: datetime) -> ColumnElement[bool]:
    """A note that keeps its content."""
    return or_(doomed_at.is_(None), doomed_at >= until)


def _in_order(hashes: Iterable[str]) -> list[list[str]]:
    """Some at a time; always in the same order, so that two writers do not wait for each other in a circle."""
    all = sorted(set(hashes))
    return [all[start : start + _FEW] for start in range(0, len(all), _FEW)]
