"""`POST /v1/images/{image_id}:suggest`."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse

from fulcrum.domain import tasks
from fulcrum.gateway.deps import AskerDep, EngineDep, RequestId, StoreDep
from fulcrum.gateway.errors import Problem
from fulcrum.gateway.loading import LoadsDep
from fulcrum.gateway.questions import About, ask
from fulcrum.gateway.result_schemas import Answer, Suggestion
from fulcrum.gateway.schemas import PathId, to_domain
from fulcrum.gateway.streams import with_errors
from fulcrum.gateway.suggest import service
from fulcrum.gateway.suggest.schemas import SuggestQuestion
from fulcrum.gateway.suggest.service import Prepared

router = APIRouter(prefix="/v1/images", tags=["questions"])


# A dependency, so that what can be refused is refused before the stream begins.
async def prepare(
    image_id: PathId, body: SuggestQuestion, asker: AskerDep, store: StoreDep, loads: LoadsDep
) -> Prepared:
    """Reads the question and makes its subject ready."""
    task = to_domain(tasks.ClassSet, body.task)
    task.index(body.wanted)
    subject = await ask(
        store, loads, asker, About([image_id], sae_id=body.sae_id, session_id=body.session_id)
    )
    return Prepared(subject, task, body)


@router.post("/{image_id}:suggest", response_class=EventSourceResponse)
async def suggest_corrections(
    prepared: Annotated[Prepared, Depends(prepare)], store: StoreDep, engine: EngineDep, request_id: RequestId
) -> AsyncIterator[Suggestion | Answer[list[Suggestion]] | Problem]:
    """Streams small edits that make a class the prediction, and keeps them together as a result.

    Events: `suggestion` (a Suggestion) as they are found, then `done` with `{"result_id", "value", "provenance"}`,
    whose `value` lists them. A failure after the start is an `error` event with the problem object. Closing the
    connection drops the work.
    """
    async with aclosing(with_errors(service.suggest(store, engine, prepared), request_id)) as events:
        async for item in events:
            yield item
