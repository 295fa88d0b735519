"""Bodies and records of `/v1/saes`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fulcrum.domain.models import Variant
from fulcrum.gateway.body import Body
from fulcrum.gateway.models.schemas import LoadState
from fulcrum.gateway.schemas import Id, Name, Seed, Shown

# `artifact:` sources are made by an upload alone: a hash that somebody guessed must not open another project's file.
Source = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=500,
        pattern=r"^(folder:[^\x00-\x1f\x7f]+|(untrained|units):[^\x00-\x1f\x7f]*)$",
    ),
]


class HookPoint(Shown):
    """`{tower}.blocks.{block}.{site}`."""

    tower: Literal["visual", "text"] = Field(description="Tower of the model.")
    block: int = Field(description="Counts from 0.")
    site: Literal["resid_post", "mlp_out", "attn_out", "mlp_in"] = Field(description="Place in the block.")


class SaeInfo(Shown):
    """A loaded SAE."""

    name: str = Field(description="Name of the SAE's folder or source.")
    weights_sha256: str = Field(description="Hash of the weights: the SAE's identity in every result.")
    variant: Literal["relu", "topk", "batch_topk", "jumprelu", "gated", "matryoshka", "units"] = Field(
        description="Kind of SAE; `units` is none, but the units of the layer themselves."
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
    source: str = Field(
        description="`folder:NAME/sub`, `artifact:<sha256>:<sha256>`, `untrained:...` or `units:<hook point>`."
    )
    created_by: str = Field(description="Id of the user who registered it.")
    created_at: datetime = Field(description="When it was registered.")
    state: LoadState = Field("registered", description="`ready` once it was loaded.")
    info: SaeInfo | None = Field(None, description="What is known once it was loaded.")
    error: str | None = Field(None, description="Why it could not be loaded.")
    job_id: str | None = Field(None, description="Job that trained it here: its metrics are the curves.")
    version: int = Field(1, description="Changes so far, and the ETag.")


class NewSae(Body):
    """An SAE to register."""

    name: Name = Field(description="Name in the project.")
    model_id: Id = Field(description="Registered model that it belongs to.")
    source: Source = Field(
        description="`folder:NAME/sub` below a folder of the inference service, `untrained:...`, or "
        "`units:<hook point>` for the units of a layer themselves."
    )
    project_id: Id | None = Field(None, description="Left out: the asker's default project.")


class SaeChange(Body):
    """What can change about a registered SAE: its name. Other weights are another SAE."""

    name: Name = Field(description="New name in the project.")


class SaeTraining(Body):
    """An SAE to train on a data set."""

    dataset_id: Id = Field(description="Data set of the model's project, whose images are looked at.")
    name: Name = Field(description="Name of the SAE in the project.")
    hook_point: (
        Annotated[
            str, StringConstraints(max_length=100, pattern=r"^(visual|text)\.blocks\.\d{1,4}\.[a-z_]+$")
        ]
        | None
    ) = Field(None, description="Where activations are read; left out: `resid_post` of the middle block.")
    variant: Variant = Field("topk", description="Kind of SAE.")
    d_sae: int = Field(2048, ge=1, le=1 << 20, description="Number of latents.")
    k: int = Field(
        16, ge=1, le=1 << 16, description="Latents that are active on a token: topk, batch_topk, matryoshka."
    )
    n_tokens: int = Field(
        1_000_000, ge=1, le=10**11, description="Tokens to train on, over as many epochs as that takes."
    )
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Peak of the schedule.")
    batch_size: int = Field(2048, ge=1, le=1 << 17, description="Tokens of a step.")
    split: Literal["discover", "select", "confirm"] | None = Field(
        None,
        description="Train on these images, judge by others; left out: a tenth of all, at most 512, judges.",
    )
    early_stop: bool = Field(
        False, description="End before `n_tokens` when the loss has stopped falling, with the usual decay."
    )
    sparsity: Annotated[float, Field(ge=0, le=1e3)] | None = Field(
        None, description="Weight of the sparsity loss of relu, gated and jumprelu; left out: the default."
    )
    seed: Seed = Field(0, description="Same seed, same numbers.")
