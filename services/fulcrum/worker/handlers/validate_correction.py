"""`validate_correction`: what a version of a correction fixes and breaks on a split, with the verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fulcrum.domain.identifiers import now
from fulcrum.domain.image_sets import from_bytes
from fulcrum.domain.jobs import Shard, ShardResult, SweepCorrection, ValidateCorrection, content_key
from fulcrum.domain.records import EvaluationRecord
from fulcrum.science.validation.report import ValidationReport
from fulcrum.worker.evaluations import (
    as_columns,
    as_json,
    as_parquet,
    count_looks,
    evaluation_id,
    keep,
)
from fulcrum.worker.questions import OpenRun, asked
from fulcrum.worker.work import Work

if TYPE_CHECKING:
    from fulcrum.engine.dataset_runs import DatasetRun
    from fulcrum.engine.validating import ChosenImages


class ValidateCorrectionHandler:
    """A shard is a part of a validation, which knows nothing of the question around it."""

    def __init__(self, open_run: OpenRun) -> None:
        self._open_run = open_run

    def plan(self, work: Work) -> Sequence[Shard]:
        """The parts. Raises what a question that cannot be meant raises."""
        from fulcrum.engine.validating import plan_validation
        from fulcrum.engine.validation_parts import part_content, part_key
        from fulcrum.science.validation.report import plan

        run, question = asked(work, self._open_run)
        planned = plan_validation(run, question)
        judged = run.dataset.splits == question.split
        n_target = int((judged if question.target is None else judged & question.target).sum())
        before = plan(int(judged.sum()), n_target, question.specification)
        mde = "no effect" if before.mde is None else f"effects from {100 * before.mde:.2f} points"
        work.log(
            f"{before.n} images, {before.n_target} of the failure mode: {mde} can be seen (80 % power); "
            f"{len(planned.touched)} can be changed, in {len(planned.parts)} parts"
        )
        return [Shard(shard_key(work, part_key(run, p)), part_content(p)) for p in planned.parts]

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        """Runs one part."""
        return run_part_of(work, shard, self._open_run)

    def reduce(self, work: Work, results: Sequence[ShardResult]) -> dict[str, Any]:
        """Judges, counts the look and keeps report, tables and record."""
        from fulcrum.engine.validating import assemble, plan_validation
        from fulcrum.science.validation.per_image import per_image
        from fulcrum.science.validation.report import look_of, validate, with_look

        spec = work.job.spec
        assert isinstance(spec, ValidateCorrection)
        run, question = asked(work, self._open_run)
        question = replace(
            question, concept_bank=_bank(work, run, spec), image_sets=tuple(_chosen(work, spec))
        )
        planned = plan_validation(run, question)
        stored = [work.artifacts.read_bytes(r.sha256) for r in results]
        given = assemble(run, question, planned, stored, work.job.created_by)
        work.progress("judging", 0, 1, "reports")
        report = validate(given, question.specification)
        look, n_looks = look_of(report), 0
        if look.split != "discover":
            before, numbers = count_looks(work, [look])
            report, n_looks = with_look(report, before, look), numbers[0]
        table = per_image(given, question.specification)
        assert report.subject is not None  # assembled with one
        record = EvaluationRecord(
            id=evaluation_id(work.job.id),
            project_id=work.job.project_id,
            kind="validation",
            correction_id=spec.correction_id,
            number=spec.number,
            dataset_id=spec.dataset_id,
            split=spec.split,
            **vars(report.subject),
            specification_sha256=report.specification_sha256,
            job_id=work.job.id,
            report_sha256=work.artifacts.put_bytes(as_json(report.to_dict())),
            created_by=work.job.created_by,
            created_at=now(),
            verdict=report.verdict.name,
            badge=report.verdict.badge,
            look=n_looks,
            gates={g.name: g.state for g in report.gates},
            numbers=_numbers(report, len(planned.touched)),
            columns_sha256=work.artifacts.put_bytes(as_columns(table)),
            parquet_sha256=work.artifacts.put_bytes(as_parquet(table)),
            image_sets=spec.image_sets,
        )
        record = keep(work, record)
        return {
            "evaluation_id": record.id,
            "verdict": record.verdict,
            "badge": record.badge,
            "look": record.look,
            "report_sha256": record.report_sha256,
        } | record.numbers


def _bank(work: Work, run: "DatasetRun", spec: ValidateCorrection) -> dict[str, NDArray[Any]]:
    if not spec.concept_bank:
        return {}
    embeddings = work.engine.encode_texts(run.steerable.loaded.info.ref, spec.concept_bank)
    return dict(zip(spec.concept_bank, embeddings, strict=True))


def _chosen(work: Work, spec: ValidateCorrection) -> Iterator["ChosenImages"]:
    """The images as they were when the question was asked. Raises UnknownArtifact, CorruptFile."""
    from fulcrum.engine.validating import ChosenImages

    for s in spec.image_sets:
        ids = frozenset(from_bytes(work.artifacts.read_bytes(s.sha256)))
        yield ChosenImages(s.name, s.purpose, ids, s.sha256)


def shard_key(work: Work, key: str) -> str:
    """The key under which a job looks for a stored result: a recomputation finds nothing but its own."""
    spec = work.job.spec
    assert isinstance(spec, ValidateCorrection | SweepCorrection)
    return content_key(part=key, job=work.job.id) if spec.fresh else key


def run_part_of(work: Work, shard: Shard, open_run: OpenRun) -> bytes:
    """The bytes of a part of a validation or sweep. Raises Conflict where this worker computes otherwise."""
    from fulcrum.domain.errors import Conflict
    from fulcrum.engine.validating import PART_NAMES
    from fulcrum.engine.validation_parts import part_from, part_key, run_part

    run, _ = asked(work, open_run)
    part = part_from(shard.content)
    if shard_key(work, part_key(run, part)) != shard.key:
        raise Conflict(
            "the data set, its index, the model or this worker's precision is no more what the job was planned for: "
            "start again"
        )
    what = PART_NAMES[part.kind]
    return run_part(run, part, lambda done, total: work.progress(what, done, total))


def _numbers(report: ValidationReport, n_affected: int) -> dict[str, Any]:
    overall, target, worst = report.overall, report.target, report.worst_group
    return {
        "n": overall.n,
        "n_affected": n_affected,
        "accuracy_before": overall.accuracy_before,
        "accuracy_after": overall.accuracy_after,
        "fixed": overall.fixed,
        "broken": overall.broken,
        "moved": overall.moved,
        "net": overall.net,
        "ci_low": overall.interval.low,
        "ci_high": overall.interval.high,
        "p": overall.p,
        "nfr": overall.nfr,
        "nfr_upper": overall.nfr_bound.upper,
        "mde": overall.mde,
        "n_target": None if target is None else target.n,
        "target_before": None if target is None else target.accuracy_before,
        "target_after": None if target is None else target.accuracy_after,
        "target_net": None if target is None else target.net,
        "target_p": None if target is None else target.p,
        "worst_group": None if worst is None else worst.accuracy_after,
        "kl_p95": None if report.ripple is None else report.ripple.kl.p95,
        "n_looks": None if report.selection is None else report.selection.n_looks,
        "q": None if report.selection is None else report.selection.q,
        "needs_n": report.verdict.needs_n,
    }
