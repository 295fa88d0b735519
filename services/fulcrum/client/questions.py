"""What a person asks: explain, steer, sweep, suggest, predict, and save what helped."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from fulcrum.client.answers import (
    Answer,
    DoseCurve,
    DosePoints,
    Explanation,
    Predictions,
    Steering,
    Suggestions,
    split,
)
from fulcrum.client.operations import Bound, Side, operation, stream
from fulcrum.client.reading import read
from fulcrum.client.resources.corrections import Corrections
from fulcrum.client.resources.models import choose_model
from fulcrum.client.resources.naming import Identified, given, id_of
from fulcrum.client.resources.saes import Saes
from fulcrum.client.steps import Flow
from fulcrum.client.subjects import About, Change, Prompts, image_of, plan_of, sae_of, subject_of, task_of
from fulcrum.client.wire import path
from fulcrum.domain.codec import to_json
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Condition, Scope
from fulcrum.domain.errors import EmptyPrompts, InvalidRequest
from fulcrum.domain.records import CorrectionRecord, ImageRecord
from fulcrum.domain.results import (
    Attribution,
    AttributionMethod,
    DoseResponse,
    Effect,
    Prediction,
    SteeredPrediction,
    Suggestion,
)
from fulcrum.domain.tasks import Target

T = TypeVar("T")

DEFAULT_GAINS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
MAX_IMAGES_OF_A_CALL, MAX_LOGITS_OF_A_CALL = 1000, 200_000  # what the gateway takes


class Questions(Bound[Side]):
    """The questions, on the client itself."""

    @operation
    def explain(
        self,
        image: About,
        prompts: Prompts | None = None,
        *,
        sae: Identified | str | None = None,
        model: Identified | str | None = None,
        target: Target | None = None,
        method: AttributionMethod = "act_x_grad",
        n_latents: int = 20,
        n_steps: int | None = None,
        per_token: bool = False,
        deterministic: bool = False,
        session: Identified | str | None = None,
    ) -> Flow[Explanation]:
        """Which latents carried the prediction of an image, with the measured effect beside each score.

        `image`: a path, bytes, an array, a PIL image, or an uploaded image's record or id.
        `prompts`: class names for "a photo of a {}", or a ClassSet. `sae`: record, id or name; None takes the newest
        that is ready, of `model` where that is given. `target` None: the prediction's margin over the runner-up.
        """
        subject = yield from subject_of(self, image, prompts, sae, model)
        body = given(
            sae_id=subject.sae.id,
            task=to_json(subject.task),
            target=None if target is None else to_json(target),
            method=method,
            n_latents=n_latents,
            n_steps=n_steps,
            per_token=per_token,
            deterministic=deterministic,
            session_id=None if session is None else id_of(session),
        )
        where = _verb(subject.image, "explain")
        answer = yield from self._ask(Answer[Attribution], where, body)
        return Explanation(
            answer.result_id, subject.image, subject.sae, subject.task, answer.value, answer.provenance
        )

    @operation
    def steer(
        self,
        image: About,
        edits: Change,
        prompts: Prompts | None = None,
        *,
        sae: Identified | str | None = None,
        model: Identified | str | None = None,
        target: Target | None = None,
        scope: Scope | None = None,
        conditions: Sequence[Condition] = (),
        drop_error: bool = False,
        n_controls: int | None = None,
        seed: int = 0,
        deterministic: bool = False,
        session: Identified | str | None = None,
    ) -> Flow[Steering]:
        """The model's answer before and after edits, with what random pushes of the same size do.

        `image` may be an Explanation, which then also names SAE and prompts. `edits`: one, several, a Correction, or a
        saved correction (then `scope`, `conditions` and `drop_error` are its own).
        """
        plan = yield from plan_of(self, edits, scope, tuple(conditions), drop_error)
        subject = yield from subject_of(self, image, prompts, sae, model, plan.task)
        body = plan.body | given(
            sae_id=subject.sae.id,
            task=to_json(subject.task),
            target=None if target is None else to_json(target),
            n_controls=n_controls,
            seed=seed,
            deterministic=deterministic,
            session_id=None if session is None else id_of(session),
        )
        answer = yield from self._ask(Answer[Effect], _verb(subject.image, "steer"), body)
        return Steering(
            answer.result_id,
            subject.image,
            subject.sae,
            subject.task,
            plan.edits,
            answer.value,
            answer.provenance,
            plan.scope,
            plan.conditions,
            plan.drop_error,
        )

    @stream(DosePoints)
    def sweep(
        self,
        image: About,
        latents: int | Sequence[int],
        prompts: Prompts | None = None,
        *,
        gains: Sequence[float] = DEFAULT_GAINS,
        sae: Identified | str | None = None,
        model: Identified | str | None = None,
        target: Target | None = None,
        deterministic: bool = False,
        session: Identified | str | None = None,
    ) -> Flow[DoseCurve]:
        """A stream of DosePoints: the answer over a grid of gains on some latents; `.result()` is the whole curve."""
        numbers = (latents,) if isinstance(latents, int) else tuple(int(n) for n in latents)
        doses = [float(g) for g in gains]
        if not all(math.isfinite(g) for g in doses):
            raise InvalidRequest(f"gains must be finite, got {doses}")
        subject = yield from subject_of(self, image, prompts, sae, model)
        body = given(
            sae_id=subject.sae.id,
            latents=list(numbers),
            gains=doses,
            task=to_json(subject.task),
            target=None if target is None else to_json(target),
            deterministic=deterministic,
            session_id=None if session is None else id_of(session),
        )
        where = _verb(subject.image, "sweep")
        done = yield from self._wire.events(where, body, lambda _, c: read(DosePoints, c, where))
        answer = read(Answer[DoseResponse], done, where)
        return DoseCurve(
            answer.result_id, subject.image, subject.sae, numbers, answer.value, answer.provenance
        )

    @stream(Suggestion)
    def suggest(
        self,
        image: About,
        wanted: str,
        prompts: Prompts | None = None,
        *,
        max_latents: int | None = None,
        sae: Identified | str | None = None,
        model: Identified | str | None = None,
        deterministic: bool = False,
        session: Identified | str | None = None,
    ) -> Flow[Suggestions]:
        """A stream of minimal edits that make `wanted` the prediction, as found; `.result()` is all of them."""
        subject = yield from subject_of(self, image, prompts, sae, model)
        subject.task.index(wanted)
        body = given(
            sae_id=subject.sae.id,
            task=to_json(subject.task),
            wanted=wanted,
            max_latents=max_latents,
            deterministic=deterministic,
            session_id=None if session is None else id_of(session),
        )
        where = _verb(subject.image, "suggest")
        done = yield from self._wire.events(where, body, lambda _, c: read(Suggestion, c, where))
        answer = read(Answer[tuple[Suggestion, ...]], done, where)
        return Suggestions(
            answer.result_id, subject.image, subject.sae, wanted, answer.value, answer.provenance
        )

    @operation
    def predict(
        self,
        images: About | Sequence[About],
        prompts: Prompts | None = None,
        *,
        model: Identified | str | None = None,
        correction: Change | None = None,
        sae: Identified | str | None = None,
        deterministic: bool = False,
        session: Identified | str | None = None,
    ) -> Flow[Predictions]:
        """Zero-shot predictions of one or many images; with a correction, each before and after it.

        More than 1000 images, or 200,000 logits, go in several calls.
        """
        many: list[About] = list(images) if isinstance(images, list | tuple) else [cast(About, images)]
        if not many:
            raise InvalidRequest("there is no image to predict")
        records = []
        for image in many:
            records.append((yield from image_of(self, image)))
        body: dict[str, Any] = {}
        task = task_of(prompts, many[0])
        if correction is None:
            record = yield from choose_model(self, model)
        else:
            plan = yield from plan_of(self, correction, None, (), False)
            chosen = yield from Saes.choose.flow(self, sae or sae_of(many[0]), model)
            record = yield from choose_model(self, chosen.model_id)
            body = plan.body | {"sae_id": chosen.id}
            task = task or plan.task
        if task is None:
            raise EmptyPrompts("give class prompts: a list of names or a ClassSet")
        body |= given(
            model_id=record.id,
            task=to_json(task),
            deterministic=deterministic,
            session_id=None if session is None else id_of(session),
        )
        answers = []
        n_logits = len(task.names) * (1 if correction is None else 2)
        step = max(1, min(MAX_IMAGES_OF_A_CALL, MAX_LOGITS_OF_A_CALL // n_logits))
        for start in range(0, len(records), step):
            ids = [r.id for r in records[start : start + step]]
            kind: Any = (
                Answer[tuple[Prediction, ...]]
                if correction is None
                else Answer[tuple[SteeredPrediction, ...]]
            )
            answers.append((yield from self._ask(kind, path("predictions"), body | {"image_ids": ids})))
        before, after = split([v for a in answers for v in a.value])
        return Predictions(
            tuple(a.result_id for a in answers),
            tuple(records),
            record,
            task,
            tuple(before),
            None if correction is None else tuple(after),
            answers[0].provenance,
        )

    @operation
    def save_correction(
        self, name: str, correction: Steering | Correction, *, description: str = "", note: str = ""
    ) -> Flow[CorrectionRecord]:
        """Saves what was steered as version 1 of a correction. Raises AlreadyExists for a taken name."""
        if isinstance(correction, Correction):
            return (
                yield from Corrections.create.flow(self, name, correction, description=description, note=note)
            )
        return (
            yield from Corrections.create.flow(
                self,
                name,
                correction.correction,
                description=description,
                note=note,
                model=correction.sae.model_id,
                sae=correction.sae,
            )
        )

    def _ask(self, kind: type[T], where: str, body: dict[str, Any]) -> Flow[T]:
        # Asking twice changes nothing but a line in a session, so a question without one needs no key.
        return (yield from self._wire.ask(kind, "POST", where, json=body, keyed="session_id" in body))


def _verb(image: ImageRecord, verb: str) -> str:
    return path("images", f"{image.id}:{verb}")
