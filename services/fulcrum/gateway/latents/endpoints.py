"""`GET /v1/images/{image_id}/latents`."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from fulcrum.domain.codec import to_json
from fulcrum.gateway.deps import AskerDep, EngineDep, StoreDep
from fulcrum.gateway.disconnects import unless_gone
from fulcrum.gateway.loading import LoadsDep
from fulcrum.gateway.questions import About, ask
from fulcrum.gateway.result_schemas import ImageLatents, Reading
from fulcrum.gateway.schemas import PathId
from fulcrum.rpc.images import ImageHash

router = APIRouter(prefix="/v1/images", tags=["questions"])


@router.get("/{image_id}/latents", response_model=Reading[ImageLatents])
async def image_latents(
    image_id: PathId,
    sae_id: Annotated[str, Query(max_length=64, description="Registered SAE, and with it the model.")],
    request: Request,
    asker: AskerDep,
    store: StoreDep,
    engine: EngineDep,
    loads: LoadsDep,
    deterministic: Annotated[bool, Query(description="The same bits whoever else uses the service.")] = False,
) -> JSONResponse:
    """Active latents of every token of an image. A reading, so it is not kept as a result."""
    subject = await ask(store, loads, asker, About([image_id], sae_id=sae_id, stored=False))
    work = engine.encode_latents(
        subject.model.ref,
        subject.source,
        ImageHash(subject.image.sha256),
        user=asker.user.id,
        deterministic=deterministic,
    )
    return JSONResponse(to_json(await unless_gone(request, work)))
