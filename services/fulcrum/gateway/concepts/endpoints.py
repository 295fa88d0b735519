"""`/v1/saes/{sae_id}/concepts`: what the latents of an SAE stand for."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import JSONResponse

from fulcrum.gateway.concepts import service
from fulcrum.gateway.concepts.schemas import ConceptRecord, ConceptText, LabelDecision, LabelReview
from fulcrum.gateway.deps import (
    AskerDep,
    IfMatch,
    PageDep,
    PageOf,
    StoreDep,
    answer,
    answer_page,
    expected_version,
)
from fulcrum.gateway.schemas import PathId

router = APIRouter(prefix="/v1/saes/{sae_id}/concepts", tags=["concepts"])

Latent = Annotated[int, Path(ge=0, le=2**31 - 1, description="Index of the latent.")]


async def expected_or_nothing(
    if_match: Annotated[
        str | None,
        Header(description="`ETag` of the concept as you saw it, or `*`; left out for a latent without one."),
    ] = None,
) -> int | Literal["any", "nothing"]:
    """Version that the change was made for. Raises InvalidRequest."""
    if if_match is None:
        return "nothing"
    version = await expected_version(if_match)
    return "any" if version is None else version


@router.get("", response_model=PageOf[ConceptRecord])
def list_concepts(
    sae_id: PathId,
    asker: AskerDep,
    store: StoreDep,
    page: PageDep,
    q: Annotated[str | None, Query(max_length=200, description="Words in label or note.")] = None,
    review: Annotated[
        LabelReview | None,
        Query(description="`proposed`: labels that wait for somebody to confirm or reject them."),
    ] = None,
) -> JSONResponse:
    """Described latents of an SAE, newest label first."""
    if q:
        return answer_page(service.search(store, asker, sae_id, q, review, page))
    return answer_page(service.page(store, asker, sae_id, review, page))


# Before `/{latent}`, which would take the verb for a part of the number.
@router.post("/{latent}:review", response_model=ConceptRecord)
def review_label(
    sae_id: PathId,
    latent: Latent,
    body: LabelDecision,
    asker: AskerDep,
    store: StoreDep,
    expected: IfMatch,
) -> JSONResponse:
    """Confirms or rejects a person's label; for reviewers other than its author.

    A rejected label goes to `history`, and the label before it comes back.
    """
    return answer(service.review(store, asker, sae_id, latent, body, expected))


@router.get("/{latent}", response_model=ConceptRecord)
def get_concept(sae_id: PathId, latent: Latent, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """What one latent stands for."""
    return answer(service.get(store, asker, sae_id, latent))


@router.put("/{latent}", response_model=ConceptRecord)
def put_concept(
    sae_id: PathId,
    latent: Latent,
    body: ConceptText,
    asker: AskerDep,
    store: StoreDep,
    expected: Annotated[int | Literal["any", "nothing"], Depends(expected_or_nothing)],
) -> JSONResponse:
    """Describes a latent; what was said before goes to `history`. A person's label is proposed until it is reviewed."""
    return answer(service.put(store, asker, sae_id, latent, body, expected))
