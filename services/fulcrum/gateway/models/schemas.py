"""Bodies and records of `/v1/models`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fulcrum.domain.models import ResizeMode
from fulcrum.gateway.body import Body
from fulcrum.gateway.schemas import Id, Name, Seed, Shown

LoadState = Literal["registered", "loading", "ready", "failed"]
# The names are resolved, and refused where they lead outside, by the inference service alone.
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]


class ModelRef(Shown):
    """How the model was asked for."""

    model_name: str = Field(description="OpenCLIP name, `hf-hub:owner/name` or `folder:NAME/sub`.")
    pretrained: str | None = Field(
        None, description="Tag, or `folder:NAME/file`; null for references that hold weights."
    )
    random_weights: bool = Field(False, description="Whether the weights are random, as asked for.")
    seed: int = Field(0, description="Of random weights.")


class ModelInfo(Shown):
    """A loaded model."""

    ref: ModelRef = Field(description="How the model was asked for.")
    weights_sha256: str = Field(description="Hash of the weights: the model's identity in every result.")
    preprocess_sha256: str = Field(description="Hash of the image preprocessing.")
    image_size: int = Field(description="Pixels of a side of the model's input.")
    n_blocks: int = Field(description="Blocks of the visual tower.")
    d_model: int = Field(description="Width of the visual tower.")
    d_embed: int = Field(description="Width of the joint embedding.")
    n_tokens: int = Field(description="Tokens of the visual tower.")
    grid: tuple[int, int] = Field(description="Rows and columns of patches.")
    has_cls: bool = Field(description="Whether token 0 is CLS.")
    pooling: str = Field(description="How tokens become the embedding.")
    logit_scale: float = Field(description="Factor from cosine to logit.")
    logit_bias: float | None = Field(description="Added to the logits by models with a sigmoid loss.")
    n_parameters: int = Field(description="Number of parameters.")
    device: str = Field(description="Where the model runs.")
    dtype: str = Field(description="Number format of the weights.")
    text_context_length: int = Field(77, description="Tokens of a prompt.")
    hook_points: list[str] = Field(default=[], description="Where an SAE may read and write.")
    resize_mode: ResizeMode = Field(
        "shortest",
        description="How an image becomes the square that the model sees: its middle, all of it with margins, or "
        "all of it distorted.",
    )


class ModelRecord(Shown):
    """A registered model."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    name: str = Field(description="Name in the project.")
    ref: ModelRef = Field(description="How the model was asked for.")
    created_by: str = Field(description="Id of the user who registered it.")
    created_at: datetime = Field(description="When it was registered.")
    state: LoadState = Field("registered", description="`ready` once it was loaded.")
    info: ModelInfo | None = Field(None, description="What is known once it was loaded.")
    error: str | None = Field(None, description="Why it could not be loaded.")
    version: int = Field(1, description="Changes so far, and the ETag.")


class NewModel(Body):
    """A model to register."""

    name: Name = Field(description="Name in the project.")
    model_name: ModelName = Field(description="OpenCLIP name, `hf-hub:owner/name` or `folder:NAME/sub`.")
    pretrained: ModelName | None = Field(
        None, description="Tag, or `folder:NAME/file`; left out for references that hold their weights."
    )
    random_weights: bool = Field(
        False, description="Accept random weights: for tests of the machinery alone."
    )
    seed: Seed = Field(0, description="Of random weights.")
    project_id: Id | None = Field(None, description="Left out: the asker's default project.")


class ModelChange(Body):
    """What can change about a registered model: its name. Other weights are another model."""

    name: Name = Field(description="New name in the project.")
