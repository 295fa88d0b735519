"""What people and programs say about the latents of an SAE."""

from typing import Literal

from fulcrum.domain.errors import (
    Conflict,
    LatentOutOfRange,
    MissingPrecondition,
    ReviewerIsAuthor,
    StaleVersion,
    UnknownConcept,
    UnknownSae,
)
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.labels import LabelReview
from fulcrum.domain.records import ConceptRecord, Page, Role, SaeRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.concepts.schemas import ConceptText, LabelDecision
from fulcrum.gateway.deps import PageParams
from fulcrum.gateway.reach import reach
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction


def page(
    store: Store, asker: Asker, sae_id: str, review: LabelReview | None, params: PageParams
) -> Page[ConceptRecord]:
    """Concepts whose label is in this state of review, None: all. Raises UnknownSae."""
    with store.read() as tx:
        sae = _sae(asker, tx, sae_id, "viewer")
        return tx.concepts.list(
            project_id=sae.project_id,
            limit=params.limit,
            cursor=params.cursor,
            sae_id=sae_id,
            review=review,
        )


def get(store: Store, asker: Asker, sae_id: str, latent: int) -> ConceptRecord:
    """Raises UnknownSae, and UnknownConcept where nothing was recorded."""
    with store.read() as tx:
        _sae(asker, tx, sae_id, "viewer")
        return _recorded(tx, sae_id, latent)


def search(
    store: Store, asker: Asker, sae_id: str, words: str, review: LabelReview | None, params: PageParams
) -> Page[ConceptRecord]:
    """Concepts with the words in label or note. Raises UnknownSae."""
    with store.read() as tx:
        sae = _sae(asker, tx, sae_id, "viewer")
        return tx.concepts.search(
            words,
            limit=params.limit,
            cursor=params.cursor,
            project_id=sae.project_id,
            sae_id=sae_id,
            review=review,
        )


def put(
    store: Store,
    asker: Asker,
    sae_id: str,
    latent: int,
    body: ConceptText,
    expected: int | Literal["any", "nothing"],
) -> ConceptRecord:
    """The concept as it is now, with what was there before in its history.

    `expected` is the version that the asker saw, or "nothing". Raises UnknownSae, LatentOutOfRange, StaleVersion,
    MissingPrecondition for "nothing" where something is, and Conflict for a program's label over a person's.
    """
    with store.write() as tx:
        sae = _sae(asker, tx, sae_id, "analyst")
        if sae.info is not None and latent >= sae.info.d_sae:
            raise LatentOutOfRange(f"latent {latent} of SAE {sae.name!r}: it has 0 to {sae.info.d_sae - 1}")
        before = tx.concepts.by_latent(sae_id, latent)
        if before is not None and expected == "nothing":
            raise MissingPrecondition(
                f"latent {latent} is labelled {before.label!r} already: send `If-Match` with the ETag that you saw"
            )
        if body.label_source == "auto" and before is not None and before.label_source == "person":
            raise Conflict(
                f"latent {latent} has the label {before.label!r} of a person: a program's does not replace it"
            )
        record = tx.concepts.put(
            ConceptRecord(
                id=new_id("con"),
                project_id=sae.project_id,
                sae_id=sae_id,
                latent=latent,
                created_by=asker.user.id,
                created_at=now(),
                label=body.label,
                label_source=body.label_source,
                label_score=body.label_score,
                note=body.note,
                review="proposed" if body.label_source == "person" else None,
            ),
            {"any": None, "nothing": 0}[expected] if isinstance(expected, str) else expected,
        )
        tx.audit.append(asker.user.id, "concept.label", sae_id, {"latent": latent, "label": body.label})
    return record


def review(
    store: Store, asker: Asker, sae_id: str, latent: int, body: LabelDecision, expected: int | None
) -> ConceptRecord:
    """The concept with its label confirmed, or with the label before a rejected one.

    Raises UnknownSae, UnknownConcept, Forbidden for less than a reviewer, ReviewerIsAuthor, StaleVersion,
    NothingToReview for a label that does not wait.
    """
    with store.write() as tx:
        sae = _sae(asker, tx, sae_id, "reviewer")
        concept = _recorded(tx, sae_id, latent)
        if expected is not None and concept.version != expected:
            raise StaleVersion(
                f"the concept of latent {latent} has version {concept.version}, not {expected}: read it again"
            )
        if concept.review == "proposed" and concept.created_by == asker.user.id:
            raise ReviewerIsAuthor(_who_else(asker, tx, sae.project_id, concept))
        reviewed = tx.concepts.review(concept, body.decision, by=asker.user.id, at=now(), note=body.note)
        tx.audit.append(
            asker.user.id,
            "concept.review",
            sae_id,
            {"latent": latent, "label": concept.label, "decision": body.decision},
        )
    return reviewed


def _who_else(asker: Asker, tx: Transaction, project_id: str, concept: ConceptRecord) -> str:
    yours = f"label {concept.label!r} of latent {concept.latent} is yours, and nobody reviews their own"
    if asker.others_who_may(tx, project_id, "reviewer"):
        return f"{yours}: ask another reviewer of project {project_id}"
    return (
        f"{yours}. Nobody else can review in project {project_id}: an administrator has to invite a colleague, or give "
        "a member the role 'reviewer'"
    )


def _recorded(tx: Transaction, sae_id: str, latent: int) -> ConceptRecord:
    found = tx.concepts.by_latent(sae_id, latent)
    if found is None:
        raise UnknownConcept(f"nothing is recorded about latent {latent} of SAE {sae_id}")
    return found


def _sae(asker: Asker, tx: Transaction, sae_id: str, role: Role) -> SaeRecord:
    return reach(asker, tx, tx.saes, sae_id, role, UnknownSae, "SAE")
