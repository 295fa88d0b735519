"""Asks the engine for a dose response, passes points on, and keeps the whole."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from fastapi.sse import ServerSentEvent

from fulcrum.domain import tasks
from fulcrum.domain.provenance import Answered
from fulcrum.gateway.answers import keep, question_json
from fulcrum.gateway.questions import Subject
from fulcrum.gateway.streams import event
from fulcrum.gateway.sweep.schemas import SweepQuestion
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.rpc.images import ImageHash
from fulcrum.store.database import Store


@dataclass(frozen=True)
class Prepared:
    """A question that was read and whose subject is ready, so that the stream can begin."""

    subject: Subject
    task: tasks.ClassSet
    target: tasks.Target | None
    body: SweepQuestion


async def sweep(
    store: Store, engine: AsyncRemoteEngine, prepared: Prepared
) -> AsyncGenerator[ServerSentEvent]:
    """`points` events, then `done` with the stored answer."""
    subject, body = prepared.subject, prepared.body
    parts = engine.sweep(
        subject.model.ref,
        subject.source,
        ImageHash(subject.image.sha256),
        body.latents,
        body.gains,
        prepared.task,
        prepared.target,
        user=subject.asker.user.id,
        deterministic=body.deterministic,
    )
    async with aclosing(parts):
        async for part in parts:
            if not isinstance(part, Answered):
                yield event("points", part)
                continue
            question = question_json(
                task=prepared.task,
                target=prepared.target,
                latents=body.latents,
                gains=body.gains,
                deterministic=body.deterministic,
            )
            yield event("done", await keep(store, subject, "dose_response", question, part))
