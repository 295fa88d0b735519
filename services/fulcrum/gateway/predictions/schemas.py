"""Body of `/v1/predictions`."""

from typing import Annotated

from pydantic import Field

from fulcrum.gateway.questions import Intervention, Question
from fulcrum.gateway.schemas import Id

MAX_NUMBERS = (
    200_000  # logits of one answer; about 10 MB of JSON with the probabilities, which the store has to hold
)


class PredictQuestion(Intervention, Question):
    """What the model says about many images, with and without a correction."""

    model_id: Id = Field(description="Registered model.")
    image_ids: Annotated[list[Id], Field(min_length=1, max_length=1_000)] = Field(
        description="Images; the answer keeps their order."
    )
    sae_id: Id | None = Field(None, description="Registered SAE of the model, for a correction.")
