"""`POST /v1/images/{image_id}:sweep`."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse

from fulcrum.domain import tasks
from fulcrum.gateway.deps import AskerDep, EngineDep, RequestId, StoreDep
from fulcrum.gateway.errors import Problem
from fulcrum.gateway.loading import LoadsDep
from fulcrum.gateway.questions import About, ask, target_of
from fulcrum.gateway.result_schemas import Answer, DoseResponse
from fulcrum.gateway.schemas import PathId, to_domain
from fulcrum.gateway.streams import with_errors
from fulcrum.gateway.sweep import service
from fulcrum.gateway.sweep.schemas import DosePoints, SweepQuestion
from fulcrum.gateway.sweep.service import Prepared

router = APIRouter(prefix="/v1/images", tags=["questions"])


# A dependency, so that what can be refused is refused before the stream begins.
async def prepare(
    image_id: PathId, body: SweepQuestion, asker: AskerDep, store: StoreDep, loads: LoadsDep
) -> Prepared:
    """Reads the question and makes its subject ready."""
    task = to_domain(tasks.ClassSet, body.task)
    target = target_of(task, body.target)
    subject = await ask(
        store, loads, asker, About([image_id], sae_id=body.sae_id, session_id=body.session_id)
    )
    return Prepared(subject, task, target, body)


@router.post("/{image_id}:sweep", response_class=EventSourceResponse)
async def sweep_image(
    prepared: Annotated[Prepared, Depends(prepare)], store: StoreDep, engine: EngineDep, request_id: RequestId
) -> AsyncIterator[DosePoints | Answer[DoseResponse] | Problem]:
    """Streams the model's answer over a grid of gains, and keeps the whole as a result.

    Events: `points` (`{"gains", "logits", "target_values"}`) as they are known, then `done` with
    `{"result_id", "value", "provenance"}`, whose `value` is a DoseResponse. A failure after the start is an `error`
    event with the problem object. Closing the connection drops the work.
    """
    async with aclosing(with_errors(service.sweep(store, engine, prepared), request_id)) as events:
        async for item in events:
            yield item
