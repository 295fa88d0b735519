"""Evaluations: what corrections did to data sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, given, id_of
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.codec import to_json
from fulcrum.domain.evaluations import (
    ConfusionDelta,
    Evaluation,
    EvaluationComparison,
    EvaluationPlan,
    FlippedImage,
    Outcome,
    Slices,
)
from fulcrum.domain.jobs import JobRecord, SplitName
from fulcrum.domain.records import CorrectionVersion, EvaluationKind, EvaluationRecord
from fulcrum.domain.tasks import ClassSet


class Evaluations(Bound[Side]):
    """`client.evaluations`: reports, flip boards and tables of what corrections did to data sets."""

    @operation
    def plan(
        self,
        correction: Identified | str,
        dataset: Identified | str,
        *,
        split: SplitName = "select",
        number: int | None = None,
        harm_margin: float = 0.01,
        discordant_share: float = 0.05,
    ) -> Flow[EvaluationPlan]:
        """What a split can show about a version (the newest), before anything is run; counts no look."""
        body = given(
            dataset_id=id_of(dataset),
            split=split,
            number=number,
            harm_margin=harm_margin,
            discordant_share=discordant_share,
        )
        where = path("corrections", f"{id_of(correction)}:plan")
        return (yield from self._wire.ask(EvaluationPlan, "POST", where, json=body, keyed=False))

    @operation
    def validate(
        self,
        correction: Identified | str,
        dataset: Identified | str,
        *,
        where: Mapping[str, str] | None = None,
        split: SplitName = "select",
        number: int | None = None,
        same_cue_legitimate: Mapping[str, str] | None = None,
        specification: Mapping[str, Any] | None = None,
        concept_bank: Sequence[str] = (),
        image_sets: Sequence[Identified | str] = (),
        n_controls: int = 100,
        task: ClassSet | None = None,
        seed: int = 0,
    ) -> Flow[JobRecord]:
        """Asks for a validation: wait for the job with `client.jobs.wait`; its result names the evaluation.

        `where` is the failure mode, such as `{"sticker": "word"}`; `specification` what differs from the default,
        `concept_bank` held-out prompts: which of them the images come nearer to is part of the report. `image_sets` are
        judged as they are now, an invariant list by a gate.
        """
        body = given(
            dataset_id=id_of(dataset),
            split=split,
            number=number,
            where=_where(where),
            same_cue_legitimate=_where(same_cue_legitimate),
            specification=None if specification is None else dict(specification),
            concept_bank=list(concept_bank),
            image_sets=[id_of(s) for s in image_sets],
            n_controls=n_controls,
            task=None if task is None else to_json(task),
            seed=seed,
        )
        place = path("corrections", f"{id_of(correction)}:validate")
        return (yield from self._wire.ask(JobRecord, "POST", place, json=body))

    @operation
    def sweep(
        self,
        correction: Identified | str,
        dataset: Identified | str,
        gains: Sequence[float],
        *,
        where: Mapping[str, str] | None = None,
        split: Literal["discover", "select"] = "select",
        number: int | None = None,
        n_controls: int = 100,
        task: ClassSet | None = None,
        seed: int = 0,
    ) -> Flow[JobRecord]:
        """Asks for a dose-response on a data set; on select every gain counts as a look."""
        body = given(
            dataset_id=id_of(dataset),
            gains=[float(g) for g in gains],
            split=split,
            number=number,
            where=_where(where),
            n_controls=n_controls,
            task=None if task is None else to_json(task),
            seed=seed,
        )
        place = path("corrections", f"{id_of(correction)}:sweep")
        return (yield from self._wire.ask(JobRecord, "POST", place, json=body))

    @operation
    def suggest(
        self,
        dataset: Identified | str,
        sae: Identified | str,
        where: Mapping[str, str],
        *,
        clean: Mapping[str, str] | None = None,
        split: Literal["discover", "select"] = "discover",
        max_clean_loss: float = 0.01,
        max_edits: int = 64,
        budget: int = 800,
        task: ClassSet | None = None,
    ) -> Flow[JobRecord]:
        """Asks for one correction that mends a failure group; then `client.corrections.save_suggested(job, name)`."""
        body = given(
            sae_id=id_of(sae),
            where=_where(where),
            clean=_where(clean),
            split=split,
            max_clean_loss=max_clean_loss,
            max_edits=max_edits,
            budget=budget,
            task=None if task is None else to_json(task),
        )
        place = path("datasets", f"{id_of(dataset)}:suggest")
        return (yield from self._wire.ask(JobRecord, "POST", place, json=body))

    @operation
    def interactions(
        self,
        corrections: Sequence[Identified | CorrectionVersion | str],
        dataset: Identified | str,
        *,
        split: Literal["discover", "select"] = "select",
        where: Mapping[str, str] | None = None,
        task: ClassSet | None = None,
        seed: int = 0,
    ) -> Flow[JobRecord]:
        """Asks what pairs of corrections break together (the newest version of each); the job's result is the matrix.

        A CorrectionVersion among them is taken as it is.
        """
        body = given(
            dataset_id=id_of(dataset),
            corrections=[_version(c) for c in corrections],
            split=split,
            where=_where(where),
            task=None if task is None else to_json(task),
            seed=seed,
        )
        return (yield from self._wire.ask(JobRecord, "POST", path("corrections:interact"), json=body))

    @listing(EvaluationRecord)
    def list(
        self,
        *,
        kind: EvaluationKind | None = None,
        correction: Identified | str | None = None,
        dataset: Identified | str | None = None,
    ) -> Flow[None]:
        """All evaluations of the project, newest first."""
        filters = given(
            project_id=self._wire.project_id,
            kind=kind,
            correction_id=None if correction is None else id_of(correction),
            dataset_id=None if dataset is None else id_of(dataset),
        )
        yield from self._wire.pages(EvaluationRecord, path("evaluations"), filters)

    @operation
    def get(self, evaluation: Identified | str) -> Flow[Evaluation]:
        """One evaluation with its whole report, and what changed since. Raises UnknownEvaluation."""
        return (yield from self._wire.ask(Evaluation, "GET", path("evaluations", id_of(evaluation))))

    @operation
    def recompute(self, evaluation: Identified | str, *, newest: bool = False) -> Flow[JobRecord]:
        """Asks its question again, of what there is today, as a job; `newest` judges the newest version instead.

        It is another look. See `compare` for what it changed.
        """
        where = path("evaluations", f"{id_of(evaluation)}:recompute")
        return (yield from self._wire.ask(JobRecord, "POST", where, json={"newest": newest}))

    @operation
    def compare(self, evaluation: Identified | str, other: Identified | str) -> Flow[EvaluationComparison]:
        """What differs between two evaluations of one kind: numbers, gates, verdict, answers of images."""
        where = path("evaluations", f"{id_of(evaluation)}:compare")
        return (
            yield from self._wire.ask(EvaluationComparison, "GET", where, params={"other_id": id_of(other)})
        )

    @listing(FlippedImage)
    def images(
        self,
        evaluation: Identified | str,
        *,
        outcome: Outcome | None = None,
        where: str | None = None,
        evaluated_only: bool = True,
        changed_only: bool = False,
    ) -> Flow[None]:
        """The flip board, images whose margin changed most first; `where` is 'column=value', or 'set=NAME'.

        `changed_only`: those whose answer is another one, whatever the outcome.
        """
        filters = given(
            outcome=outcome, where=where, evaluated_only=evaluated_only, changed_only=changed_only or None
        )
        place = path("evaluations", id_of(evaluation), "images")
        yield from self._wire.pages(FlippedImage, place, filters)

    @operation
    def table(
        self,
        evaluation: Identified | str,
        to: str | Path | None = None,
        *,
        format: Literal["parquet", "csv"] = "parquet",
    ) -> Flow[bytes]:
        """One row for each image, from which every figure can be recomputed; also written to `to`."""
        where = path("evaluations", id_of(evaluation), "table")
        content = yield from self._wire.fetch(where, {"format": format})
        if to is not None:
            Path(to).write_bytes(content)
        return content

    @operation
    def confusion(self, evaluation: Identified | str) -> Flow[ConfusionDelta]:
        """Which answers became which."""
        where = path("evaluations", id_of(evaluation), "confusion")
        return (yield from self._wire.ask(ConfusionDelta, "GET", where))

    @operation
    def slices(self, evaluation: Identified | str) -> Flow[Slices]:
        """The slice table, and slices found by searching the flips."""
        return (yield from self._wire.ask(Slices, "GET", path("evaluations", id_of(evaluation), "slices")))


def _version(correction: Identified | CorrectionVersion | str) -> dict[str, object]:
    if isinstance(correction, CorrectionVersion):
        return {"correction_id": id_of(correction.correction_id), "number": correction.number}
    return {"correction_id": id_of(correction)}


def _where(columns: Mapping[str, str] | None) -> list[dict[str, str]] | None:
    return None if columns is None else [{"column": c, "value": v} for c, v in columns.items()]
