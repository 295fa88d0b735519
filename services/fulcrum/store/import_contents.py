"""What imports keep before anything names it, so that nothing of one that failed stays for ever.

An import notes the hash of each image and mask *before* it looks whether these bytes are there. When it succeeds, its
manifest names them and the notes go; when it has failed or was cancelled long ago, its notes are doomed, and some time
later what nobody names is removed. Both who notes and who removes change the row of the hash first, so of the two the
later one sees what the earlier one did: a content that is noted again is not removed, and one that was removed is not
taken to be there.

What a shard of such an import found must not be used again, since it stands for images that may be gone: the results
are forgotten when the notes are doomed, and jobs that hold them begin anew when they are tried again.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import Connection, ForeignKey, Index, Table, and_, delete, func, select, update
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
    """A content, and the import that noted it last."""

    __tablename__ = "import_contents"
    __table_args__ = (Index(None, "job_id"), Index(None, "doomed_at"))
    sha256: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    doomed_at: Mapped[datetime | None]


class ImportContents(Access):
    """Notes by the hash of the content."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, ImportContentRow, "noted content")

    def note(self, job_id: str, hashes: Iterable[str]) -> None:
        """These contents are going to be kept, or relied on, by an import. Look whether they are there afterwards."""
        self._put(job_id, hashes, None)

    def release(self, hashes: Iterable[str]) -> None:
        """Records are going to name these contents: put them afterwards, whether they are there or not."""
        for some in _in_order(hashes):
            self._write(delete(self._table).where(self._table.c.sha256.in_(some)))

    def release_job(self, job_id: str) -> None:
        """All that an import noted is named by its manifest now."""
        self._write(delete(self._table).where(self._table.c.job_id == job_id))

    def doom(self, before: datetime, at: datetime) -> int:
        """Dooms what imports left that failed or were cancelled `before` a time; how many contents there were."""
        c, n = self._table.c, 0
        failed = select(_JOBS.c.id).where(
            _JOBS.c.state.in_(_WITHOUT_RESULT), _JOBS.c.finished_at < before, _JOBS.c.kind == "import_dataset"
        )
        left = select(c.job_id).where(c.doomed_at.is_(None), c.job_id.in_(failed)).distinct()
        for id in sorted(self._connection.execute(left).scalars().all()):
            parts = self._begin_anew(id)
            if parts is None:
                continue
            for some in _in_order(parts):
                self._write(RESULTS.delete().where(RESULTS.c.sha256.in_(some)))
            self._put(id, parts, at)
            mine = and_(c.job_id == id, c.doomed_at.is_(None))
            n += self._write(update(self._table).where(mine).values(doomed_at=at)).rowcount
        return n

    def due(self, before: datetime, slack: timedelta, limit: int) -> list[str]:
        """Contents doomed `before` a time, and by `slack` before the oldest import began that is not finished."""
        c = self._table.c
        query = (
            select(c.sha256).where(c.doomed_at < self._until(before, slack)).order_by(c.sha256).limit(limit)
        )
        return list(self._connection.execute(query).scalars())

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
            query = select(c.sha256).where(c.sha256.in_(some), c.doomed_at < until).order_by(c.sha256)
            taken |= set(self._connection.execute(query.with_for_update()).scalars())
        self.release(taken)
        return taken

    def _until(self, before: datetime, slack: timedelta) -> datetime:
        running = select(func.min(_JOBS.c.created_at)).where(
            _JOBS.c.kind == "import_dataset", _JOBS.c.state.not_in(FINISHED)
        )
        oldest: datetime | None = self._connection.execute(running).scalar_one()
        return before if oldest is None else min(before, oldest - slack)

    def _begin_anew(self, job_id: str) -> set[str] | None:
        """Makes a failed job forget its shards; their results. None where it is at work again."""
        row = self._connection.execute(
            select(_JOBS.c.state).where(_JOBS.c.id == job_id).with_for_update()
        ).one()
        if row.state not in _WITHOUT_RESULT:
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
            self._write(rows.on_conflict_do_update(index_elements=["sha256"], set_=values))


def _in_order(hashes: Iterable[str]) -> list[list[str]]:
    """Some at a time; always in the same order, so that two writers do not wait for each other in a circle."""
    all = sorted(set(hashes))
    return [all[start : start + _FEW] for start in range(0, len(all), _FEW)]
