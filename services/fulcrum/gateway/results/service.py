"""Reading stored answers; they are written by `fulcrum.gateway.answers` and never change."""

from fulcrum.domain.errors import UnknownResult
from fulcrum.domain.records import Page, ResultKind, ResultRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import PageParams
from fulcrum.gateway.reach import reach
from fulcrum.store.database import Store


def page(
    store: Store,
    asker: Asker,
    project_id: str | None,
    params: PageParams,
    *,
    kind: ResultKind | None,
    image_id: str | None,
    key: str | None,
) -> Page[ResultRecord]:
    """Raises UnknownProject."""
    with store.read() as tx:
        project = asker.project(tx, project_id, "viewer")
        return tx.results.list(
            project_id=project,
            limit=params.limit,
            cursor=params.cursor,
            kind=kind,
            image_id=image_id,
            key=key,
        )


def get(store: Store, asker: Asker, result_id: str) -> ResultRecord:
    """Raises UnknownResult."""
    with store.read() as tx:
        return reach(asker, tx, tx.results, result_id, "viewer", UnknownResult, "result")
