"""Body of `:explain`."""

from typing import Literal

from pydantic import Field

from fulcrum.gateway.questions import Question
from fulcrum.gateway.schemas import Id, Target


class ExplainQuestion(Question):
    """Which latents carried an output."""

    sae_id: Id = Field(description="Registered SAE, and with it the model.")
    target: Target | None = Field(
        None, description="The output to explain; the margin of the prediction over the runner-up by default."
    )
    method: Literal["act_x_grad", "integrated_gradients", "ablation"] = Field(
        "act_x_grad", description="How scores are made."
    )
    n_latents: int = Field(
        20, ge=1, le=1_000, description="Latents in the answer, each with its measured effect."
    )
    n_steps: int = Field(32, ge=1, le=1_024, description="Steps of integrated gradients.")
    per_token: bool = Field(False, description="Scores for each token, too.")
