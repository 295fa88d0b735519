"""Results: every answer as it was given."""

from typing import Any

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, given, id_of
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.records import ResultRecord


class Results(Bound[Side]):
    """`client.results`: every answer as it was given."""

    @operation
    def get(self, result_id: str) -> Flow[ResultRecord]:
        """One result with its question and provenance. Raises UnknownResult."""
        return (yield from self._wire.ask(ResultRecord, "GET", path("results", id_of(result_id))))

    @listing(ResultRecord)
    def list(self, *, kind: str | None = None, image: Identified | str | None = None) -> Flow[None]:
        """All results of the project, newest first."""
        filters: dict[str, Any] = given(
            project_id=self._wire.project_id, kind=kind, image_id=None if image is None else id_of(image)
        )
        yield from self._wire.pages(ResultRecord, path("results"), filters)
