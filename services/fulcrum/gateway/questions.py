"""What questions to the engine have in common: whom and what they are about, and the correction that they try."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from fulcrum.domain import corrections as domain
from fulcrum.domain import edits, tasks
from fulcrum.domain.codec import from_json
from fulcrum.domain.errors import InvalidRequest, UnknownCorrection, UnknownImage, UnknownModel, UnknownSae
from fulcrum.domain.records import ImageRecord, ModelRecord, Role, SaeRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.body import Body
from fulcrum.gateway.deps import look, run_in_thread
from fulcrum.gateway.loading import Loads
from fulcrum.gateway.reach import reach, reach_all, together
from fulcrum.gateway.schemas import (
    ClassSet,
    Conditions,
    Correction,
    Edits,
    Id,
    Scope,
    Target,
    to_domain,
)
from fulcrum.gateway.sessions import service as sessions
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction

_FEW_IMAGES = 16  # are read in less time than a thread takes to wake


class Question(Body):
    """A question about a task."""

    task: ClassSet = Field(description="The classes between which the model decides.")
    deterministic: bool = Field(
        False, description="The same bits whoever else uses the service, at some cost in speed."
    )
    session_id: Id | None = Field(None, description="Session of the asker in which the answer is logged.")


class Intervention(Body):
    """The correction to try, in one of three forms: `edits`, `correction`, or `correction_id`."""

    edits: Edits | None = Field(None, description="Edits at the SAE's hook point.")
    scope: Scope | None = Field(None, description="With `edits`: which tokens they touch; all by default.")
    conditions: Conditions | None = Field(None, description="With `edits`: when they act; always by default.")
    drop_error: bool | None = Field(
        None, description="With `edits`: leave out what the SAE cannot reconstruct; no by default."
    )
    correction: Correction | None = Field(None, description="A whole correction.")
    correction_id: Id | None = Field(None, description="A saved correction.")
    number: int | None = Field(
        None, ge=1, le=2**31 - 1, description="With `correction_id`: the version; the newest by default."
    )


@dataclass(frozen=True)
class Subject:
    """What a question is about, all of one project and open to the asker."""

    asker: Asker
    project_id: str
    model: ModelRecord
    sae: SaeRecord | None
    images: tuple[ImageRecord, ...]
    session_id: str | None
    tried: domain.Correction | None = None  # where it is known before the SAE is loaded

    @property
    def image(self) -> ImageRecord:
        """The image of a question about one."""
        return self.images[0]

    @property
    def source(self) -> str:
        """The engine's name for the SAE."""
        assert self.sae is not None, "the question has no SAE"
        return self.sae.source


@dataclass(frozen=True)
class About:
    """Ids that a question names. An answer that is `stored` is written into the project, which takes an analyst."""

    image_ids: Sequence[str]
    sae_id: str | None = None
    model_id: str | None = None  # left out where `sae_id` says it
    session_id: str | None = None
    intervention: Intervention | None = None
    stored: bool = True


def find_subject(store: Store, asker: Asker, about: About) -> Subject:
    """Raises UnknownImage, UnknownSae, UnknownModel, UnknownCorrection, UnknownSession, Forbidden, InvalidRequest."""
    with store.read() as tx:
        role: Role = "analyst" if about.stored else "viewer"
        images = reach_all(asker, tx, tx.images, about.image_ids, role, UnknownImage, "image")
        model_id, sae = about.model_id, None
        if about.sae_id is not None:
            sae = reach(asker, tx, tx.saes, about.sae_id, role, UnknownSae, "SAE")
            if model_id not in (None, sae.model_id):
                raise InvalidRequest(
                    f"SAE {sae.id} was registered for model {sae.model_id}, not for {model_id}"
                )
            model_id = sae.model_id
        assert model_id is not None, "a question names a model or an SAE"
        model = reach(asker, tx, tx.models, model_id, role, UnknownModel, "model")
        session = None if about.session_id is None else sessions.find_own(asker, tx, about.session_id)
        together(model, *images, sae, session)
        tried = None if about.intervention is None else _tried(asker, tx, about.intervention, model)
    return Subject(asker, model.project_id, model, sae, images, about.session_id, tried)


async def ready(subject: Subject, loads: Loads) -> Subject:
    """The subject with model and SAE loaded and described. Raises what prevents that."""
    user = subject.asker.user.id
    model = await loads.model(subject.model, user)
    sae = None if subject.sae is None else await loads.sae(subject.sae, model, user)
    return replace(subject, model=model, sae=sae)


async def ask(store: Store, loads: Loads, asker: Asker, about: About) -> Subject:
    """`find_subject` without holding up the event loop, then `ready`."""
    if len(about.image_ids) <= _FEW_IMAGES:
        subject = await look(store, find_subject, asker, about)
    else:
        subject = await run_in_thread(find_subject, store, asker, about)
    return await ready(subject, loads)


def correction_of(subject: Subject, tries: Intervention, task: ClassSet) -> domain.Correction:
    """The correction that the question tries, for a subject that is `ready`. Raises InvalidEdit."""
    if subject.tried is not None:
        return subject.tried
    assert subject.model.info is not None, "the subject is ready"
    assert subject.sae is not None, "interventions are checked to come with an SAE"
    assert subject.sae.info is not None, "the subject is ready"
    content = tries.model_dump()
    return domain.Correction(
        model_sha256=subject.model.info.weights_sha256,
        sae_sha256=subject.sae.info.weights_sha256,
        hook_point=str(subject.sae.info.hook_point),
        edits=from_json(tuple[edits.Edit, ...], content["edits"], "edits"),
        scope=edits.Scope() if tries.scope is None else to_domain(edits.Scope, tries.scope),
        conditions=from_json(tuple[edits.Condition, ...], content["conditions"] or (), "conditions"),
        task=to_domain(tasks.ClassSet, task),
        drop_error=bool(tries.drop_error),
    )


def target_of(task: tasks.ClassSet, target: Target | None) -> tasks.Target | None:
    """The target, checked against the task's classes. Raises InvalidTarget."""
    if target is None:
        return None
    task.index(target.class_name)
    if target.kind == "margin":
        task.index(target.versus)
    found: tasks.Target = from_json(tasks.Target, target.model_dump(), "target")  # type: ignore[arg-type]  # a union is no class
    return found


def tries_something(tries: Intervention) -> bool:
    """Whether any of the three forms was given. Raises InvalidRequest for several, and for fields of another form."""
    forms = ("edits", "correction", "correction_id")
    given = [name for name in forms if getattr(tries, name) is not None]
    if len(given) > 1:
        raise InvalidRequest(f"{' and '.join(given)} exclude each other: give one of {', '.join(forms)}")
    only_with = {"scope": "edits", "conditions": "edits", "drop_error": "edits", "number": "correction_id"}
    for name, form in only_with.items():
        if getattr(tries, name) is not None and form not in given:
            raise InvalidRequest(f"{name} belongs to {form}, which is not given")
    return bool(given)


def _tried(
    asker: Asker, tx: Transaction, tries: Intervention, model: ModelRecord
) -> domain.Correction | None:
    if tries.correction is not None:
        return to_domain(domain.Correction, tries.correction)
    if tries.correction_id is None:
        return None
    record = reach(asker, tx, tx.corrections, tries.correction_id, "viewer", UnknownCorrection, "correction")
    together(model, record)
    return tx.corrections.get_version(record.id, tries.number).correction
