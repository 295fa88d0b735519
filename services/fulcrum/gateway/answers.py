"""Answers of the engine: kept as they were given, then given."""

import hashlib
import json
from contextlib import suppress
from typing import Any

from fulcrum.domain.codec import to_json
from fulcrum.domain.errors import UnknownSession
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.provenance import Answered, Provenance
from fulcrum.domain.records import ResultKind, ResultRecord
from fulcrum.gateway.deps import run_in_thread
from fulcrum.gateway.questions import Subject
from fulcrum.gateway.sessions.service import entry
from fulcrum.store.database import Store


async def keep(
    store: Store, subject: Subject, kind: ResultKind, question: dict[str, Any], answered: Answered[Any]
) -> dict[str, Any]:
    """The JSON form of the answer, `{"result_id", "value", "provenance"}`, once it is stored.

    `question` is what was asked apart from image, model and SAE, in JSON form.
    """
    return await run_in_thread(_keep, store, subject, kind, question, answered)


def _keep(
    store: Store, subject: Subject, kind: ResultKind, question: dict[str, Any], answered: Answered[Any]
) -> dict[str, Any]:
    value = to_json(answered.value)
    images = [image.sha256 for image in subject.images]
    record = ResultRecord(
        id=new_id("res"),
        project_id=subject.project_id,
        kind=kind,
        key=key(kind, question, images, answered.provenance),
        request={
            **question,
            "model_id": subject.model.id,
            "sae_id": None if subject.sae is None else subject.sae.id,
            "image_ids": [image.id for image in subject.images],
            "image_sha256": images,
        },
        response={"value": value},
        provenance=answered.provenance,
        created_by=subject.asker.user.id,
        created_at=now(),
        image_id=subject.image.id if len(subject.images) == 1 else None,
    )
    with store.write() as tx:
        tx.results.add(record)
        if subject.session_id is not None:
            line = entry(
                subject.asker, subject.session_id, "result", {"kind": kind}, record.id, record.image_id
            )
            with suppress(UnknownSession):  # deleted while the engine worked; the answer stays
                tx.sessions.add_entry(line)
    return {"result_id": record.id, "value": value, "provenance": to_json(answered.provenance)}


def key(kind: ResultKind, question: dict[str, Any], images: list[str], provenance: Provenance) -> str:
    """Hash of question and digests: names and ids may come to mean other things, these cannot."""
    content = {
        "kind": kind,
        "question": question,
        "image_sha256": images,
        "model_sha256": provenance.model_sha256,
        "preprocess_sha256": provenance.preprocess_sha256,
        "sae_sha256": provenance.sae_sha256,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def question_json(**parts: Any) -> dict[str, Any]:
    """Parts of a question as JSON, for `keep`."""
    found: dict[str, Any] = to_json(parts)
    return found
