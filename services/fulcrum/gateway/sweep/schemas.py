"""Body and events of `:sweep`."""

from typing import Annotated

from pydantic import Field

from fulcrum.gateway.questions import Question
from fulcrum.gateway.schemas import Amount, Id, Latent, Shown, Target


class SweepQuestion(Question):
    """How the answer follows the gain of some latents."""

    sae_id: Id = Field(description="Registered SAE, and with it the model.")
    latents: Annotated[list[Latent], Field(min_length=1, max_length=256)] = Field(
        description="Latents that share the gain, all different."
    )
    gains: Annotated[list[Amount], Field(min_length=1, max_length=256)] = Field(
        description="The grid: 0 suppresses, 1 changes nothing."
    )
    target: Target | None = Field(
        None, description="The output to watch; the margin of the prediction over the runner-up by default."
    )


class DosePoints(Shown):
    """Data of a `points` event: some points, as soon as they are known."""

    gains: list[float] = Field(description="Gains of these points.")
    logits: list[list[float]] = Field(description="For each gain, one for each class.")
    target_values: list[float] = Field(description="The target's value for each gain.")
