"""The outputs that are attributed, as differentiable functions of unnormalised image embeddings."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from fulcrum.domain.errors import EmptyPrompts, InvalidTarget
from fulcrum.domain.results import Prediction
from fulcrum.domain.tasks import Target

# (batch, d_embed) unnormalised -> (batch,)
TargetFunction = Callable[[Tensor], Tensor]


def unit_norm(v: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """Rows of length 1 in at least float32; a row of zeros stays zero, with a finite gradient (trap 11)."""
    v = v.to(torch.promote_types(v.dtype, torch.float32))
    # Dividing by the largest entry first keeps squares of huge and tiny rows inside the type's range.
    # It is a constant to the gradient, as the result does not depend on it.
    largest = v.detach().abs().amax(dim=-1, keepdim=True)
    v = v / torch.where(largest > 0, largest, 1.0)
    squares = v.square().sum(dim=-1, keepdim=True)
    return v * torch.where(squares > 0, squares, 1.0).rsqrt()


@dataclass(frozen=True)
class ZeroShotHead:
    """Class embeddings with the logit scale: `logits = logit_scale * cosine + logit_bias`.

    `logit_scale` is the factor itself (100 for OpenAI's CLIP), not its logarithm; it belongs into every
    logit, probability and margin (SCIENCE.md 8, trap 6). `class_embeddings` need not be normalised.
    """

    class_names: tuple[str, ...]
    class_embeddings: Float[Tensor, "n_classes d_embed"]
    logit_scale: float
    logit_bias: float | None = None
    probs_kind: Literal["softmax", "sigmoid"] = "softmax"

    def __post_init__(self) -> None:
        if len(self.class_names) != self.class_embeddings.shape[0] or not self.class_names:
            raise EmptyPrompts(
                f"{len(self.class_names)} class names for {self.class_embeddings.shape[0]} class embeddings: "
                "one embedding for each of at least one class"
            )

    @cached_property
    def _class_units(self) -> Float[Tensor, "n_classes d_embed"]:
        # Also a caller under inference_mode leaves a tensor here that a backward pass may use.
        with torch.inference_mode(False):
            return unit_norm(self.class_embeddings)

    def cosines(self, embeddings: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch n_classes"]:
        """Cosine of every image with every class, in at least float32; 0 for an image embedding of zero."""
        units = unit_norm(embeddings)
        return units @ self._class_units.to(units).T

    def logits(self, embeddings: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch n_classes"]:
        """With the logit scale and, where the model has one, the bias."""
        logits = self.logit_scale * self.cosines(embeddings)
        return logits if self.logit_bias is None else logits + self.logit_bias

    def predictions(self, embeddings: Float[Tensor, "batch d_embed"]) -> list[Prediction]:
        """One for each row; probabilities in float64."""
        logits = self.logits(embeddings).detach().double().cpu()
        probs = torch.sigmoid(logits) if self.probs_kind == "sigmoid" else torch.softmax(logits, dim=1)
        return [
            Prediction(self.class_names, row.numpy(), p.numpy(), self.probs_kind)
            for row, p in zip(logits, probs, strict=True)
        ]

    def index(self, class_name: str) -> int:
        """Raises InvalidTarget for a class that is not in the set."""
        if class_name not in self.class_names:
            raise InvalidTarget(f"class {class_name!r} is not in the class set {list(self.class_names)}")
        return self.class_names.index(class_name)


def target_function(head: ZeroShotHead, target: Target) -> TargetFunction:
    """`y(embeddings)` for a target. Raises InvalidTarget for classes that the head does not have."""
    wanted = head.index(target.class_name)
    match target.kind:
        case "cosine":
            return lambda embeddings: head.cosines(embeddings)[:, wanted]
        case "logit":
            return lambda embeddings: head.logits(embeddings)[:, wanted]
        case "log_prob":
            return lambda embeddings: torch.log_softmax(head.logits(embeddings), dim=1)[:, wanted]
        case "margin":
            versus = head.index(target.versus)

            def margin(embeddings: Tensor) -> Tensor:
                logits = head.logits(embeddings)
                return logits[:, wanted] - logits[:, versus]

            return margin
        case _:
            assert_never(target.kind)


def margin_over_best_other(head: ZeroShotHead, wanted: str) -> TargetFunction:
    """Margin of `wanted` over the best of the other classes: above 0 exactly where it is predicted.

    Raises InvalidTarget for an unknown class or a class set of one.
    """
    index = head.index(wanted)
    if len(head.class_names) < 2:
        raise InvalidTarget(f"the class set holds only {wanted!r}: there is no other class to win against")
    others = [i for i in range(len(head.class_names)) if i != index]

    def margin(embeddings: Tensor) -> Tensor:
        logits = head.logits(embeddings)
        return logits[:, index] - logits[:, others].amax(dim=1)

    return margin
