"""Body of `:steer`."""

from pydantic import Field

from fulcrum.gateway.questions import Intervention, Question
from fulcrum.gateway.schemas import Id, Seed, Target


class SteerQuestion(Intervention, Question):
    """What a correction does to one image."""

    sae_id: Id = Field(description="Registered SAE, and with it the model.")
    target: Target | None = Field(
        None, description="The output to watch; the margin of the prediction over the runner-up by default."
    )
    n_controls: int = Field(
        32, ge=0, le=1_024, description="Random pushes of the same size to compare with, of each kind."
    )
    seed: Seed = Field(0, description="Of the random pushes.")
