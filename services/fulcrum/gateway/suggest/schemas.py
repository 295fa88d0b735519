"""Body of `:suggest`."""

from pydantic import Field

from fulcrum.gateway.questions import Question
from fulcrum.gateway.schemas import Id, Prompt


class SuggestQuestion(Question):
    """Which small edits make a class the prediction."""

    sae_id: Id = Field(description="Registered SAE, and with it the model.")
    wanted: Prompt = Field(description="The class that should be predicted.")
    max_latents: int = Field(5, ge=1, le=16, description="Most latents of one suggestion.")
