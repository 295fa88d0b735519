"""`sweep_correction`: dose-response of a correction on a split, with the cloud of its matched controls."""

from collections.abc import Sequence
from typing import Any

from fulcrum.domain.errors import InvalidRequest
from fulcrum.domain.identifiers import now
from fulcrum.domain.jobs import Shard, ShardResult, SweepCorrection
from fulcrum.domain.records import EvaluationRecord
from fulcrum.worker.evaluations import as_json, count_looks, evaluation_id, keep
from fulcrum.worker.handlers.validate_correction import run_part_of, shard_key
from fulcrum.worker.questions import OpenRun, asked
from fulcrum.worker.work import Work


class SweepCorrectionHandler:
    """The parts of each gain, under the keys that a validation at this gain has."""

    def __init__(self, open_run: OpenRun) -> None:
        self._open_run = open_run

    def plan(self, work: Work) -> Sequence[Shard]:
        """The parts. Raises InvalidRequest on confirm, InvalidEdit without gains, and what a validation raises."""
        from fulcrum.engine.sweeping import plan_sweep
        from fulcrum.engine.validation_parts import part_content, part_key

        spec = _spec(work)
        if spec.split == "confirm":
            raise InvalidRequest(
                "a sweep chooses a gain: on discover or select; confirm proves what was chosen and stays sealed"
            )
        run, question = asked(work, self._open_run)
        planned = plan_sweep(run, question, spec.gains)
        work.log(f"{len(planned.gains)} gains and {spec.n_controls} controls, in {len(planned.parts)} parts")
        return [Shard(shard_key(work, part_key(run, p)), part_content(p)) for p in planned.parts]

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        """Runs one part."""
        return run_part_of(work, shard, self._open_run)

    def reduce(self, work: Work, results: Sequence[ShardResult]) -> dict[str, Any]:
        """Judges every gain; on select each of them is a look, because each was tried."""
        from fulcrum.engine.sweeping import assemble_sweep, plan_sweep
        from fulcrum.engine.validating import subject_of
        from fulcrum.science.validation.looks import Look
        from fulcrum.science.validation.report import plain

        spec = _spec(work)
        run, question = asked(work, self._open_run)
        planned = plan_sweep(run, question, spec.gains)
        stored = [work.artifacts.read_bytes(r.sha256) for r in results]
        report = assemble_sweep(run, question, planned, stored, work.job.created_by)
        subject = subject_of(run, question.correction)
        tried = [g for g in report.gains if g.gain != 1.0]
        looks = [Look(g.correction_sha256, subject.dataset_digest, spec.split, g.p) for g in tried]
        if spec.split == "select":
            count_looks(work, looks)
        chosen = [c.chosen for c in report.curves if c.chosen is not None and c.chosen.fix_rate > 0]
        best = max(chosen, key=lambda d: d.fix_rate, default=None)
        record = EvaluationRecord(
            id=evaluation_id(work.job.id),
            project_id=work.job.project_id,
            kind="sweep",
            correction_id=spec.correction_id,
            number=spec.number,
            dataset_id=spec.dataset_id,
            split=spec.split,
            **vars(subject),
            specification_sha256=report.specification_sha256,
            job_id=work.job.id,
            report_sha256=work.artifacts.put_bytes(as_json(plain(report))),
            created_by=work.job.created_by,
            created_at=now(),
            look=len(looks) if spec.split == "select" else 0,
            numbers={
                "n": report.n,
                "n_target": report.n_target,
                "n_gains": len(report.gains),
                "n_controls": len(report.controls),
                "chosen_gain": None if best is None else best.gain,
                "chosen_fix_rate": None if best is None else best.fix_rate,
                "chosen_nfr": None if best is None else best.nfr,
            },
        )
        record = keep(work, record)
        return {"evaluation_id": record.id, "report_sha256": record.report_sha256} | record.numbers


def _spec(work: Work) -> SweepCorrection:
    spec = work.job.spec
    assert isinstance(spec, SweepCorrection)
    return spec
