"""Asks the engine what a correction does to one image, and keeps the answer."""

from typing import Any

from fulcrum.domain import tasks
from fulcrum.domain.errors import InvalidRequest
from fulcrum.gateway.answers import keep, question_json
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.loading import Loads
from fulcrum.gateway.questions import About, ask, correction_of, target_of, tries_something
from fulcrum.gateway.schemas import to_domain
from fulcrum.gateway.steer.schemas import SteerQuestion
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.rpc.images import ImageHash
from fulcrum.store.database import Store


async def steer(
    store: Store, engine: AsyncRemoteEngine, loads: Loads, asker: Asker, image_id: str, body: SteerQuestion
) -> dict[str, Any]:
    """The stored answer. Raises what `find_subject` and the engine raise."""
    if not tries_something(body):
        raise InvalidRequest("nothing to try: give edits, correction or correction_id")
    task = to_domain(tasks.ClassSet, body.task)
    target = target_of(task, body.target)
    about = About([image_id], sae_id=body.sae_id, session_id=body.session_id, intervention=body)
    subject = await ask(store, loads, asker, about)
    correction = correction_of(subject, body, body.task)
    answered = await engine.steer(
        subject.model.ref,
        subject.source,
        ImageHash(subject.image.sha256),
        correction,
        task,
        target,
        body.n_controls,
        body.seed,
        user=asker.user.id,
        deterministic=body.deterministic,
    )
    question = question_json(
        task=task,
        target=target,
        correction=correction,
        n_controls=body.n_controls,
        seed=body.seed,
        deterministic=body.deterministic,
    )
    return await keep(store, subject, "effect", question, answered)
