"""Asks the engine for predictions of many images, with and without a correction, and keeps the answer."""

from typing import Any

from fulcrum.domain import tasks
from fulcrum.domain.errors import InvalidRequest, PayloadTooLarge
from fulcrum.domain.provenance import Answered
from fulcrum.gateway.answers import keep, question_json
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.loading import Loads
from fulcrum.gateway.predictions.schemas import MAX_NUMBERS, PredictQuestion
from fulcrum.gateway.questions import About, ask, correction_of, tries_something
from fulcrum.gateway.schemas import to_domain
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.rpc.images import ImageHash
from fulcrum.store.database import Store


async def predict(
    store: Store, engine: AsyncRemoteEngine, loads: Loads, asker: Asker, body: PredictQuestion
) -> dict[str, Any]:
    """The stored answer. Raises what `find_subject` and the engine raise, PayloadTooLarge for too many logits."""
    steered = tries_something(body)
    if steered != (body.sae_id is not None):
        raise InvalidRequest("a correction needs sae_id, and sae_id needs edits, correction or correction_id")
    task = to_domain(tasks.ClassSet, body.task)
    size = len(body.image_ids) * len(task.names) * (2 if steered else 1)
    if size > MAX_NUMBERS:
        raise PayloadTooLarge(
            f"{len(body.image_ids)} images and {len(task.names)} classes make {size} logits: "
            f"at most {MAX_NUMBERS} fit in one answer"
        )
    about = About(
        body.image_ids,
        sae_id=body.sae_id,
        model_id=body.model_id,
        session_id=body.session_id,
        intervention=body,
    )
    subject = await ask(store, loads, asker, about)
    images = [ImageHash(image.sha256) for image in subject.images]
    question = question_json(task=task, deterministic=body.deterministic)
    answered: Answered[Any]
    if steered:
        correction = correction_of(subject, body, body.task)
        question |= question_json(correction=correction)
        answered = await engine.predict_steered(
            subject.model.ref,
            subject.source,
            images,
            correction,
            task,
            user=asker.user.id,
            deterministic=body.deterministic,
        )
    else:
        answered = await engine.predict(
            subject.model.ref, images, task, user=asker.user.id, deterministic=body.deterministic
        )
    return await keep(store, subject, "prediction", question, answered)
