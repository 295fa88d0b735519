"""Answers that colleagues got on the bench: who may read and not ask is shown what was said to the same question."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from fulcrum.client import Client, Explanation, Steering
from fulcrum.domain.codec import from_json
from fulcrum.domain.corrections import Correction
from fulcrum.domain.errors import FulcrumError
from fulcrum.domain.records import ImageRecord, ResultRecord, SaeRecord
from fulcrum.domain.results import Attribution, Effect
from fulcrum.domain.tasks import ClassSet
from fulcrum_ui.bench_state import Bench, split_templates
from fulcrum_ui.visitor import SHORT_S, remembered

T = TypeVar("T")

_MOST = 60  # newest answers of a kind that are looked through


def find(
    client: Client, image: ImageRecord, saes: Sequence[SaeRecord], bench: Bench
) -> tuple[Explanation | None, Steering | None]:
    """The newest explanation that the bench asks for (any of the image, where it names no SAE or classes), and what its
    edits did. None where nobody asked.
    """
    by_id = {s.id: s for s in saes}
    why = explanation(_of(client, image, "attribution"), image, by_id, bench)
    if why is None or not bench.edits:
        return why, None
    return why, steering(_of(client, image, "effect"), why, bench)


def explanation(
    newest_first: Iterable[ResultRecord], image: ImageRecord, saes: Mapping[str, SaeRecord], bench: Bench
) -> Explanation | None:
    """Of these answers the first that the bench asks for."""
    for record in newest_first:
        sae = saes.get(str(record.request.get("sae_id")))
        if sae is None or bench.sae not in (None, sae.id):
            continue
        task = _read(ClassSet, record.request.get("task"))
        if task is None or (bench.classes and task != _task(bench)):
            continue
        value = _read(Attribution, record.response.get("value"))
        if value is not None:
            return Explanation(record.id, image, sae, task, value, record.provenance)
    return None


def steering(newest_first: Iterable[ResultRecord], why: Explanation, bench: Bench) -> Steering | None:
    """What the bench's edits did to what is explained; one with controls before one without."""
    found: Steering | None = None
    for record in newest_first:
        request = record.request
        if request.get("sae_id") != why.sae.id or _read(ClassSet, request.get("task")) != why.task:
            continue
        tried = _read(Correction, request.get("correction"))
        if tried is None or not _is_of(tried, bench):
            continue
        effect = _read(Effect, record.response.get("value"))
        if effect is None:
            continue
        kept = Steering(
            record.id, why.image, why.sae, why.task, tried.edits, effect, record.provenance, tried.scope
        )
        if effect.controls:
            return kept
        found = found or kept
    return found


def _is_of(tried: Correction, bench: Bench) -> bool:
    plain = not tried.conditions and not tried.drop_error
    return plain and set(tried.edits) == set(bench.edits) and tried.scope == bench.scope


def _task(bench: Bench) -> ClassSet | None:
    try:
        return ClassSet(bench.classes, split_templates(bench.template))
    except FulcrumError:
        return None  # an address can hold anything


def _of(client: Client, image: ImageRecord, kind: str) -> list[ResultRecord]:
    return remembered(
        ("kept", image.id, kind),
        lambda: list(islice(client.results.list(kind=kind, image=image), _MOST)),
        for_s=SHORT_S,
    )


def _read(kind: type[T], content: Any) -> T | None:
    """None for what another version of the platform wrote."""
    try:
        return from_json(kind, content)
    except FulcrumError:
        return None
