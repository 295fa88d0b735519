"""How an evaluation is kept: looks counted first, bytes next, the record last, each of them once for a job."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulcrum.domain.errors import Conflict
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import EvaluationRecord, LookRecord
from fulcrum.science.validation.looks import Look, Looks
from fulcrum.worker.work import Work


def evaluation_id(job_id: str) -> str:
    """The same for each attempt of a job."""
    return f"evl_{job_id.partition('_')[2]}"


def count_looks(work: Work, looks: list[Look]) -> tuple[Looks, tuple[int, ...]]:
    """Counts what this job looked at: all looks at the data set before its own, and the numbers of its own.

    A job that is tried again finds the looks that it counted.
    """
    if not looks:
        return Looks(), ()
    job = work.job
    numbers = []
    with work.store.write() as tx:
        for look in looks:
            record = LookRecord(
                new_id("lok"),
                job.project_id,
                look.dataset_digest,
                look.split,
                look.correction_sha256,
                look.p,
                0,
                job.id,
                now(),
            )
            numbers.append(tx.looks.count(record))
        known = tx.looks.at(job.project_id, looks[0].dataset_digest)
    mine = {n.id for n in numbers}
    first = next(i for i, k in enumerate(known) if k.id in mine)
    before = Looks()
    for k in known[:first]:
        before = before.record(Look(k.correction_sha256, k.dataset_digest, k.split, k.p))  # type: ignore[arg-type]  # a split
    return before, tuple(n.number for n in numbers)


def as_json(content: Any) -> bytes:
    """Canonical JSON of a report."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def as_columns(table: Mapping[str, NDArray[Any]]) -> bytes:
    """A table as numpy columns, which the gateway reads without more libraries."""
    stream = io.BytesIO()
    columns: dict[str, Any] = dict(table)
    np.savez_compressed(stream, **columns)
    return stream.getvalue()


def as_parquet(table: Mapping[str, NDArray[Any]]) -> bytes:
    """A table as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet

    content = pa.table({name: pa.array(values) for name, values in table.items()})
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(content, sink)
    return bytes(sink.getvalue().to_pybytes())


def keep(work: Work, record: EvaluationRecord) -> EvaluationRecord:
    """The record, written once; its correction counts as evaluated.

    Raises UnknownDataset when the data set was deleted meanwhile, Conflict when it changed, UnknownCorrection.
    """
    with work.store.write() as tx:
        known = tx.evaluations.find(record.id)
        if known is not None:
            return known
        dataset = tx.datasets.get(record.dataset_id)
        if dataset.digest != record.dataset_digest:
            raise Conflict(f"the data set {dataset.name!r} changed while it was looked at: start again")
        correction = tx.corrections.get(record.correction_id)
        tx.evaluations.add(record)
        if correction.state == "draft" and correction.latest == record.number:
            tx.corrections.update(correction.id, None, state="evaluated")
        tx.audit.append(
            record.created_by,
            "evaluation.create",
            record.id,
            {"correction": record.correction_id, "split": record.split, "look": record.look},
        )
    return record
