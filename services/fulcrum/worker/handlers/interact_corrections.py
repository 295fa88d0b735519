"""`interact_corrections`: what saved corrections break in pairs that neither breaks alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fulcrum.domain.errors import Conflict, InvalidRequest, SaeDoesNotFit
from fulcrum.domain.jobs import InteractCorrections, Shard, ShardResult
from fulcrum.worker.evaluations import count_looks
from fulcrum.worker.questions import OpenRun, version_of
from fulcrum.worker.work import Work

if TYPE_CHECKING:
    from fulcrum.engine.dataset_runs import DatasetRun
    from fulcrum.engine.interacting import InteractionPlan


class InteractCorrectionsHandler:
    """The answers of each correction alone and of each pair, under the keys that a validation of them has."""

    def __init__(self, open_run: OpenRun) -> None:
        self._open_run = open_run

    def plan(self, work: Work) -> Sequence[Shard]:
        """The parts. Raises InvalidRequest on confirm or for fewer than two corrections, SaeDoesNotFit, InvalidEdit."""
        from fulcrum.engine.validation_parts import part_content, part_key

        run, planned = self._planned(work)
        for (first, second), reason in planned.refused.items():
            work.log(f"left out: {first} with {second}: {reason}", "warning")
        work.log(f"{len(planned.numbers)} images, {len(planned.pairs)} pairs in {len(planned.parts)} parts")
        return [Shard(part_key(run, p), part_content(p)) for p in planned.parts]

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        """Runs one part. Raises Conflict where this worker computes otherwise."""
        from fulcrum.engine.validation_parts import part_from, part_key, run_part

        run, _ = self._planned(work)
        part = part_from(shard.content)
        if part_key(run, part) != shard.key:
            raise Conflict("data set, index, model or precision is no more what was planned for: start again")
        return run_part(run, part, lambda done, total: work.progress("affected images", done, total))

    def reduce(self, work: Work, results: Sequence[ShardResult]) -> dict[str, Any]:
        """The matrix; on select each correction and each pair is a look, because each was tried."""
        from fulcrum.engine.interacting import judge_interactions
        from fulcrum.science.validation.looks import Look
        from fulcrum.science.validation.report import plain

        spec = _spec(work)
        run, planned = self._planned(work)
        stored = [work.artifacts.read_bytes(r.sha256) for r in results]
        alone, pairs = judge_interactions(run, planned, stored, spec.seed)
        if spec.split == "select":
            digest = run.dataset.digest
            count_looks(work, [Look(a.correction_sha256, digest, "select", a.p) for a in alone])
        return {
            "split": spec.split,
            "n": len(planned.numbers),
            "corrections": [plain(a) for a in alone if a.name not in planned.pairs.values()],
            "together": [plain(a) for a in alone if a.name in planned.pairs.values()],
            "interactions": [plain(p) for p in pairs],
            "refused": [
                {"first": first, "second": second, "reason": reason}
                for (first, second), reason in planned.refused.items()
            ],
        }

    def _planned(self, work: Work) -> "tuple[DatasetRun, InteractionPlan]":
        from fulcrum.datasets.selecting import mask_where
        from fulcrum.engine.interacting import plan_interactions

        spec = _spec(work)
        if spec.split == "confirm":
            raise InvalidRequest(
                "confirm is looked at once, for one version: pairs are tried on discover or select"
            )
        found = {
            named(c.correction_id, c.number): version_of(work, c.correction_id, c.number)
            for c in spec.corrections
        }
        if len(found) < 2:
            raise InvalidRequest(
                f"{len(found)} correction has nothing to interact with: at least two are needed"
            )
        saes = {sae_id for _, sae_id in found.values()}
        if len(saes) > 1:
            raise SaeDoesNotFit(f"the corrections were made for {len(saes)} SAEs: they cannot act together")
        tasks = {version.correction.task for version, _ in found.values()}
        task = spec.task or (tasks.pop() if len(tasks) == 1 else None)
        run = self._open_run(work, spec.dataset_id, saes.pop(), task)
        where = mask_where(run.dataset, spec.where) if spec.where else None
        corrections = {name: version.correction for name, (version, _) in found.items()}
        return run, plan_interactions(run, corrections, spec.split, where)


def named(correction_id: str, number: int) -> str:
    """How the result names a version."""
    return f"{correction_id}@{number}"


def _spec(work: Work) -> InteractCorrections:
    spec = work.job.spec
    assert isinstance(spec, InteractCorrections)
    return spec
