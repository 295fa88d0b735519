"""Evaluations: what corrections did to data sets."""

from pathlib import Path
from typing import Literal

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, given, id_of
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.evaluations import (
    ConfusionDelta,
    Evaluation,
    EvaluationPlan,
    FlippedImage,
    Outcome,
    Slices,
)
from fulcrum.domain.jobs import SplitName
from fulcrum.domain.records import EvaluationKind, EvaluationRecord


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

    @listing(FlippedImage)
    def images(
        self,
        evaluation: Identified | str,
        *,
        outcome: Outcome | None = None,
        where: str | None = None,
        evaluated_only: bool = True,
    ) -> Flow[None]:
        """The flip board, images whose margin changed most first; `where` is 'column=value'."""
        filters = given(outcome=outcome, where=where, evaluated_only=evaluated_only)
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
