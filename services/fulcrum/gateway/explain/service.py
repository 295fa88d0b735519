"""Asks the engine which latents carried an output, and keeps the answer."""

from typing import Any

from fulcrum.domain import tasks
from fulcrum.gateway.answers import keep, question_json
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.explain.schemas import ExplainQuestion
from fulcrum.gateway.loading import Loads
from fulcrum.gateway.questions import About, ask, target_of
from fulcrum.gateway.schemas import to_domain
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.rpc.images import ImageHash
from fulcrum.store.database import Store


async def explain(
    store: Store, engine: AsyncRemoteEngine, loads: Loads, asker: Asker, image_id: str, body: ExplainQuestion
) -> dict[str, Any]:
    """The stored answer. Raises what `find_subject` and the engine raise."""
    task = to_domain(tasks.ClassSet, body.task)
    target = target_of(task, body.target)
    subject = await ask(
        store, loads, asker, About([image_id], sae_id=body.sae_id, session_id=body.session_id)
    )
    answered = await engine.attribute(
        subject.model.ref,
        subject.source,
        ImageHash(subject.image.sha256),
        task,
        target,
        body.method,
        body.n_latents,
        body.n_steps,
        body.per_token,
        user=asker.user.id,
        deterministic=body.deterministic,
    )
    question = question_json(
        task=task,
        target=target,
        method=body.method,
        n_latents=body.n_latents,
        n_steps=body.n_steps,
        per_token=body.per_token,
        deterministic=body.deterministic,
    )
    return await keep(store, subject, "attribution", question, answered)
