"""What answers hold: the domain's result values as pydantic models with the same names and fields."""

from typing import Generic, Literal, TypeVar

from pydantic import Field

from fulcrum.gateway.schemas import Edit, Shown, Target

T = TypeVar("T")


class Provenance(Shown):
    """How the numbers came about: enough to compute them again and to see why they took their time."""

    model_sha256: str = Field(description="Hash of the model's weights.")
    sae_sha256: str | None = Field(description="Hash of the SAE's weights; null where no SAE took part.")
    hook_point: str | None = Field(description="Where activations were read or written; null without an SAE.")
    preprocess_sha256: str = Field(description="Hash of the image preprocessing.")
    device: str = Field(description="Device that computed.")
    dtype: str = Field(description="Number format of the weights and activations.")
    deterministic: bool = Field(description="Whether the bits are the same alone or beside other requests.")
    batch_size: int = Field(description="Rows of the largest forward that this request rode in.")
    queue_ms: float = Field(description="Milliseconds of waiting for the device.")
    compute_ms: float = Field(description="Milliseconds inside the engine without that waiting.")
    prefix_cached: bool = Field(
        description="Whether the image's activations at the hook point were kept from before."
    )
    fulcrum_version: str = Field(description="Version of Fulcrum that computed.")
    torch_version: str = Field(description="Version of PyTorch that computed.")


class Answer(Shown, Generic[T]):
    """A stored answer: read it again at `/v1/results/{result_id}`."""

    result_id: str = Field(description="Id of the stored result.")
    value: T = Field(description="The answer itself.")
    provenance: Provenance = Field(description="How the answer came about.")


class Reading(Shown, Generic[T]):
    """An answer that is not stored."""

    value: T = Field(description="The answer itself.")
    provenance: Provenance = Field(description="How the answer came about.")


class Prediction(Shown):
    """One image under one class set, in the order of the class set."""

    class_names: list[str] = Field(description="Classes of the task.")
    logits: list[float] = Field(description="With the logit scale (and bias), one for each class.")
    probs: list[float] = Field(description="One for each class.")
    probs_kind: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="How `probs` follow from `logits`."
    )


class LatentAttribution(Shown):
    """One latent's share. `score` is not a percentage: scores do not sum to the target."""

    latent: int = Field(description="Index of the latent.")
    score: float = Field(description="Attribution by the method.")
    measured_effect: float | None = Field(
        description="y(x) - y(x without the latent); null where not measured."
    )
    max_activation: float = Field(description="Largest value over the tokens.")
    n_tokens_active: int = Field(description="Tokens on which the latent fires.")
    per_token: list[float] | None = Field(None, description="Score for each token, where asked for.")


class Attribution(Shown):
    """What an output is attributed to, with the evidence about the attribution itself."""

    method: Literal["act_x_grad", "integrated_gradients", "ablation"] = Field(
        description="How scores were made."
    )
    target: Target
    target_value: float = Field(description="The target's value on this image.")
    latents: list[LatentAttribution] = Field(description="By |score|, largest first.")
    prediction: Prediction = Field(description="The model's untouched answer.")
    rank_agreement: float | None = Field(
        description="Spearman between score and measured effect over the measured latents."
    )
    completeness_residual: float | None = Field(
        description="integrated_gradients: y(x) - y(baseline) - sum of all scores."
    )
    interaction_share: float | None = Field(
        description="1 - sum of single effects / effect of all measured together."
    )
    joint_effect: float | None = Field(description="Effect of removing all measured latents together.")
    grid: tuple[int, int] = Field((0, 0), description="Rows and columns of patches.")
    has_cls: bool = Field(True, description="Whether token 0 is CLS.")
    hook_point: str = Field("", description="Where activations were read.")


class EditDiagnostics(Shown):
    """Did the edit do what it says?"""

    fired: list[bool] = Field(description="For each edit: was z > 0 anywhere in scope.")
    condition_met: bool = Field(description="Whether all conditions held.")
    relative_change: list[float] = Field(description="|x' - x| / |x| for each token.")
    reencode_error: float = Field(
        description="max |SAE(x')_j - z'_j| over edited latents and tokens in scope."
    )
    moved_latents: list[tuple[int, float]] = Field(
        description="(latent, change of its image maximum) of unedited latents, largest first."
    )
    changed: bool = Field(description="False: the activations are bit-identical to the unedited ones.")


class Controls(Shown):
    """What pushes of the same size do under random directions or random latents."""

    kind: Literal["random_directions", "matched_latents"] = Field(description="Which pushes were drawn.")
    target_changes: list[float] = Field(description="Change of the same target, one for each draw.")
    n_flipped: int = Field(description="Draws that change the prediction as the edit does.")
    p_value: float = Field(description="(1 + draws at least as large in absolute change) / (1 + n_draws).")


class Effect(Shown):
    """Before and after from one call, so that a comparison can never pair different inputs."""

    before: Prediction = Field(description="The model's untouched answer.")
    after: Prediction = Field(description="The answer under the edits.")
    diagnostics: EditDiagnostics = Field(description="Did the edit do what it says?")
    controls: list[Controls] = Field(default=[], description="What pushes of the same size do.")
    target: Target | None = Field(None, description="The output that was watched.")
    target_before: float | None = Field(None, description="The target's value before.")
    target_after: float | None = Field(None, description="The target's value after.")
    reconstruction_only: Prediction | None = Field(
        None, description="No edit, error dropped: the baseline of `drop_error`."
    )


class SteeredPrediction(Shown):
    """One image of many, before and after a correction."""

    before: Prediction = Field(description="The model's untouched answer.")
    after: Prediction = Field(description="The answer under the correction.")
    changed: bool = Field(description="False: the correction left the activations bit-identical.")


class DoseResponse(Shown):
    """The answer of the model over a grid of gains for one set of latents."""

    gains: list[float] = Field(description="The grid.")
    logits: list[list[float]] = Field(description="For each gain, one for each class.")
    class_names: list[str] = Field(description="Classes of the task.")
    target_values: list[float] = Field(description="The target's value for each gain.")
    target: Target
    flip_interval: tuple[float, float] | None = Field(
        description="Gains around the first change of prediction, walking away from 1."
    )
    monotone: bool = Field(description="Whether the target only rises or only falls over the grid.")


class Suggestion(Shown):
    """One way to change the answer of one image."""

    edits: list[Edit] = Field(description="The edits that belong together.")
    minimal: bool = Field(description="No proper subset flips the prediction.")
    margin_before: float = Field(description="Margin of the wanted class before, in logits.")
    margin_after: float = Field(description="Margin of the wanted class after, in logits.")
    flips: bool = Field(description="Whether the wanted class becomes the prediction.")
    dose_interval: tuple[float, float] | None = Field(
        description="Gains between which the flip happens; null where not searched."
    )
    estimated_effect: float = Field(description="What the attribution promised.")
    dataset_cost: float | None = Field(None, description="Share of clean images changed, where known.")


class ImageLatents(Shown):
    """Active latents of one image as CSR over its tokens (token 0 is CLS where the tower has one)."""

    offsets: list[int] = Field(description="n_tokens + 1 offsets into the other two.")
    latents: list[int] = Field(description="Indices of the active latents.")
    values: list[float] = Field(description="Their values.")
    d_sae: int = Field(description="Number of latents of the SAE.")
