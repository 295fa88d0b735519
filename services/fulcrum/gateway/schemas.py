"""What requests may hold: the domain's words as pydantic models with the same names and fields.

The domain's dataclasses keep the meaning (and its checks); these refuse what cannot be one of them, with the place in
the body, and become the OpenAPI file. `to_domain` leads from one to the other, through the one JSON form.
Bounds that the domain does not have are there so that no single request can be unbounded work.
"""

from typing import Annotated, Any, Literal, TypeVar

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from fulcrum.domain.codec import from_json
from fulcrum.domain.errors import InvalidRequest
from fulcrum.gateway.body import Body

T = TypeVar("T")

_MAX_INT = 2**31 - 1

# PostgreSQL refuses NUL inside a text, so it must not get that far.
Id = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,64}$"),
    Field(description="Id as the API gave it, such as `img_01...`."),
]
PathId = Annotated[str, Path(max_length=200, description="Id as the API gave it.")]
Name = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$",
    ),
]
Text = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]
Prompt = Annotated[str, StringConstraints(min_length=1, max_length=2_000, pattern=r"^[^\x00]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Latent = Annotated[int, Field(ge=0, le=_MAX_INT, description="Index of the latent, 0 .. d_sae-1.")]
# Beyond this a push drowns the activations, and half precision overflows long before.
Amount = Annotated[float, Field(ge=-1e6, le=1e6)]
Seed = Annotated[int, Field(ge=0, le=_MAX_INT)]


class Shown(BaseModel):
    """What a client gets: exactly the fields that are documented."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def to_domain(kind: type[T], body: Body) -> T:
    """The domain value that the body means. Raises the domain's own errors (EmptyPrompts, InvalidEdit, ...)."""
    return from_json(kind, body.model_dump())


def changes(body: Body) -> dict[str, Any]:
    """The fields that a PATCH changes. Raises InvalidRequest when there is none."""
    named = body.model_dump(exclude_none=True)
    if not named:
        raise InvalidRequest(f"nothing to change: name at least one of {sorted(type(body).model_fields)}")
    return named


class ClassSet(Body):
    """The classes of a zero-shot task, in order; a class embedding averages its templates."""

    names: list[Prompt] = Field(
        min_length=1, max_length=10_000, description="Class names (prompts), all different."
    )
    templates: list[Prompt] = Field(
        default=["a photo of a {}"],
        min_length=1,
        max_length=100,
        description="Sentences with `{}` where the name goes; `{}` alone takes names as whole prompts.",
    )


class CosineTarget(Body):
    """`cosine(image, text of the class)`."""

    class_name: Prompt = Field(description="A class of the task.")
    kind: Literal["cosine"] = Field(description="Which output is meant.")


class LogitTarget(Body):
    """`exp(logit_scale) * cosine + logit_bias`."""

    class_name: Prompt = Field(description="A class of the task.")
    kind: Literal["logit"] = Field(description="Which output is meant.")


class LogProbTarget(Body):
    """`log_softmax(logits)` over the class set."""

    class_name: Prompt = Field(description="A class of the task.")
    kind: Literal["log_prob"] = Field(description="Which output is meant.")


class MarginTarget(Body):
    """`logit(class_name) - logit(versus)`: what moves all prompts together cancels."""

    class_name: Prompt = Field(description="A class of the task.")
    versus: Prompt = Field(description="Another class of the task.")
    kind: Literal["margin"] = Field(description="Which output is meant.")


Target = Annotated[
    CosineTarget | LogitTarget | LogProbTarget | MarginTarget,
    Field(discriminator="kind", description="The output that is explained or watched."),
]


class Scale(Body):
    """`z' = gain * z`: 0 suppresses, 1 changes nothing, above 1 amplifies. Acts only where the latent fires."""

    latent: Latent
    gain: Amount = Field(description="Factor on the latent's value.")
    kind: Literal["scale"] = Field(description="Which edit is meant.")


class SetTo(Body):
    """`z' = value` everywhere in scope, also where the latent is silent."""

    latent: Latent
    value: Amount = Field(description="New value in the latent's own units.")
    kind: Literal["set"] = Field(description="Which edit is meant.")


class Cap(Body):
    """`z' = min(z, value)`."""

    latent: Latent
    value: Amount = Field(description="Upper bound, >= 0, in the latent's own units.")
    kind: Literal["cap"] = Field(description="Which edit is meant.")


class Floor(Body):
    """`z' = max(z, value)`; acts everywhere in scope when `value > 0`."""

    latent: Latent
    value: Amount = Field(description="Lower bound in the latent's own units.")
    kind: Literal["floor"] = Field(description="Which edit is meant.")


class Add(Body):
    """`z' = z + value` everywhere in scope."""

    latent: Latent
    value: Amount = Field(description="What is added, in the latent's own units.")
    kind: Literal["add"] = Field(description="Which edit is meant.")


class ProjectOut(Body):
    """`x' = x - (1 - keep) P x`, P the projector on the latent's decoder (or encoder) direction."""

    latent: Latent
    keep: Amount = Field(
        0.0, description="Share of the component that stays: 0 removes it, 1 changes nothing."
    )
    direction: Literal["decoder", "encoder"] = Field(
        "decoder", description="Whose direction is projected out."
    )
    kind: Literal["project_out"] = Field(description="Which edit is meant.")


class MeanAblate(Body):
    """`z' = mean`, the latent's mean over the tokens of a data set."""

    latent: Latent
    mean: Amount = Field(description="The mean, in the latent's own units.")
    kind: Literal["mean_ablate"] = Field(description="Which edit is meant.")


class Affine(Body):
    """`z' = gain * z + shift` everywhere in scope."""

    latent: Latent
    gain: Amount = Field(description="Factor on the latent's value.")
    shift: Amount = Field(description="What is added, in the latent's own units.")
    kind: Literal["affine"] = Field(description="Which edit is meant.")


Edit = Annotated[
    Scale | SetTo | Cap | Floor | Add | ProjectOut | MeanAblate | Affine,
    Field(discriminator="kind", description="A change of one latent."),
]


class Scope(Body):
    """Which tokens an edit touches."""

    kind: Literal["all", "cls", "patches", "patch_list"] = Field("all", description="Which tokens are meant.")
    patches: list[Annotated[int, Field(ge=0, le=_MAX_INT)]] = Field(
        default=[], max_length=100_000, description="Row-major patch numbers from 0, only with `patch_list`."
    )


class LatentCondition(Body):
    """True when the image maximum of the unedited latent compares so with the threshold."""

    latent: Latent
    operator: Literal[">=", "<="] = Field(description="How the maximum is compared.")
    threshold: float = Field(description="In the latent's own units.")
    kind: Literal["latent"] = Field(description="Which condition is meant.")


class PredictedClassCondition(Body):
    """True when the unedited prediction is one of the classes."""

    class_names: list[Prompt] = Field(min_length=1, max_length=10_000, description="Classes of the task.")
    kind: Literal["predicted_class"] = Field(description="Which condition is meant.")


class MarginCondition(Body):
    """True when the unedited margin of the prediction over the runner-up is below `below`."""

    below: float = Field(description="In logits.")
    kind: Literal["margin"] = Field(description="Which condition is meant.")


Condition = Annotated[
    LatentCondition | PredictedClassCondition | MarginCondition,
    Field(discriminator="kind", description="When the edits act."),
]
Edits = Annotated[
    list[Edit], Field(max_length=1_000, description="At most one edit for each latent; none is the identity.")
]
Conditions = Annotated[
    list[Condition],
    Field(max_length=64, description="All must hold for the edits to act; none means always."),
]


class Origin(Body):
    """Where a correction came from: the images it was found on can never be what proves it."""

    kind: Name = Field("manual", description="manual, image_search, group_search, expert_search or import.")
    image_sha256: list[Sha256] = Field(
        default=[], max_length=100_000, description="Content hashes of the images that it was found on."
    )
    dataset_digest: Name | None = Field(None, description="Digest of the data set that it was found on.")
    note: Text = Field("", description="Anything a later reader should know.")


class Correction(Body):
    """Edits at one hook point of one model under one SAE, with scope, condition and task."""

    model_sha256: Sha256 = Field(description="Hash of the model's weights.")
    sae_sha256: Sha256 = Field(description="Hash of the SAE's weights.")
    hook_point: Annotated[str, StringConstraints(pattern=r"^(visual|text)\.blocks\.\d{1,4}\.[a-z_]+$")] = (
        Field(description="Where the edits act, such as `visual.blocks.3.resid_post`.")
    )
    edits: Edits
    scope: Scope = Field(Scope.model_validate({}), description="Which tokens the edits touch.")
    conditions: Conditions = Field(default=[], description="When the edits act; none means always.")
    task: ClassSet | None = Field(None, description="The task that the correction was made for.")
    origin: Origin = Field(Origin.model_validate({}), description="Where the correction came from.")
    drop_error: bool = Field(
        False, description="Leave out what the SAE cannot reconstruct; compare with `reconstruction_only`."
    )
