"""Bodies and records of `/v1/saes`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fulcrum.gateway.body import Body
from fulcrum.gateway.models.schemas import LoadState
from fulcrum.gateway.schemas import Id, Name, Shown

# `artifact:` sources are made by an upload alone: a hash that somebody guessed must not open another project's file.
Source = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=500, pattern=r"^(folder:[^\x00-\x1f\x7f]+|untrained:[^\x00-\x1f\x7f]*)$"
    ),
]


class HookPoint(Shown):
    """`{tower}.blocks.{block}.{site}`."""

    tower: Literal["visual", "text"] = Field(description="Tower of the model.")
    block: int = Field(description="Counts from 0.")
    site: Literal["resid_post", "mlp_out", "attn_out"] = Field(description="Place in the block.")


class SaeInfo(Shown):
    """A loaded SAE."""

    name: str = Field(description="Name of the SAE's folder or source.")
    weights_sha256: str = Field(description="Hash of the weights: the SAE's identity in every result.")
    variant: Literal["relu", "topk", "batch_topk", "jumprelu", "gated", "matryoshka"] = Field(
        description="Kind of SAE."
    )
    d_in: int = Field(description="Width of what it reads.")
    d_sae: int = Field(description="Number of latents.")
    hook_point: HookPoint = Field(description="Where it reads and writes.")
    model_name: str = Field(description="Model that it was trained on.")
    quality: dict[str, float] = Field(default={}, description="Figures measured when it was trained.")


class SaeRecord(Shown):
    """A registered SAE of a registered model."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    name: str = Field(description="Name in the project.")
    model_id: str = Field(description="Model that it was registered for.")
    source: str = Field(description="`folder:NAME/sub`, `artifact:<sha256>:<sha256>` or `untrained:...`.")
    created_by: str = Field(description="Id of the user who registered it.")
    created_at: datetime = Field(description="When it was registered.")
    state: LoadState = Field("registered", description="`ready` once it was loaded.")
    info: SaeInfo | None = Field(None, description="What is known once it was loaded.")
    error: str | None = Field(None, description="Why it could not be loaded.")
    version: int = Field(1, description="Changes so far, and the ETag.")


class NewSae(Body):
    """An SAE to register."""

    name: Name = Field(description="Name in the project.")
    model_id: Id = Field(description="Registered model that it belongs to.")
    source: Source = Field(
        description="`folder:NAME/sub` below a folder of the inference service, or `untrained:...`."
    )
    project_id: Id | None = Field(None, description="Left out: the asker's default project.")


class SaeChange(Body):
    """What can change about a registered SAE: its name. Other weights are another SAE."""

    name: Name = Field(description="New name in the project.")
