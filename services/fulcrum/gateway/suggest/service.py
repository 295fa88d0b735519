"""Asks the engine for edits that change the answer, passes them on as they are found, and keeps them together."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from fastapi.sse import ServerSentEvent

from fulcrum.domain import tasks
from fulcrum.domain.provenance import Answered
from fulcrum.gateway.answers import keep, question_json
from fulcrum.gateway.questions import Subject
from fulcrum.gateway.streams import event
from fulcrum.gateway.suggest.schemas import SuggestQuestion
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.rpc.images import ImageHash
from fulcrum.store.database import Store


@dataclass(frozen=True)
class Prepared:
    """A question that was read and whose subject is ready, so that the stream can begin."""

    subject: Subject
    task: tasks.ClassSet
    body: SuggestQuestion


async def suggest(
    store: Store, engine: AsyncRemoteEngine, prepared: Prepared
) -> AsyncGenerator[ServerSentEvent]:
    """`suggestion` events, then `done` with the stored answer."""
    subject, body = prepared.subject, prepared.body
    parts = engine.suggest(
        subject.model.ref,
        subject.source,
        ImageHash(subject.image.sha256),
        prepared.task,
        body.wanted,
        body.max_latents,
        user=subject.asker.user.id,
        deterministic=body.deterministic,
    )
    async with aclosing(parts):
        async for part in parts:
            if not isinstance(part, Answered):
                yield event("suggestion", part)
                continue
            question = question_json(
                task=prepared.task,
                wanted=body.wanted,
                max_latents=body.max_latents,
                deterministic=body.deterministic,
            )
            yield event("done", await keep(store, subject, "suggestions", question, part))
