"""When an edit acts: conditions on the unedited activations and the unedited prediction."""

from collections.abc import Callable, Sequence
from typing import Protocol, assert_never, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fulcrum.domain.edits import Condition
from fulcrum.domain.errors import InvalidEdit
from fulcrum.domain.results import Prediction


@runtime_checkable
class Readout(Protocol):
    """What turns image embeddings into class logits."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Order of the logits' last dimension."""
        ...

    def logits(self, embeddings: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch n_classes"]:
        """With the logit scale and bias, from embeddings that need not be normalised."""
        ...

    def predictions(self, embeddings: Float[Tensor, "batch d_embed"]) -> list[Prediction]:
        """One for each row."""
        ...


def needs_logits(conditions: Sequence[Condition]) -> bool:
    """Whether the unedited prediction must be known before the edit can be made."""
    return any(c.kind != "latent" for c in conditions)


def conditions_met(
    conditions: Sequence[Condition],
    image_maxima: Callable[[int], Float[Tensor, " n_images"]],
    logits: Float[Tensor, "n_images n_classes"] | None,
    class_names: Sequence[str],
    n_images: int,
) -> Bool[Tensor, " n_images"]:
    """Images for which all conditions hold, on the CPU; without conditions, all of them.

    `image_maxima(latent)` gives the unedited latent's maximum over all tokens of every image, also those out
    of scope.
    Raises InvalidEdit when a prediction is asked for and there are no logits, or for an unknown class.
    """
    met = torch.ones(n_images, dtype=torch.bool)
    for condition in conditions:
        match condition.kind:
            case "latent":
                maxima = image_maxima(condition.latent).cpu()
                # The operator is written out: in one public tool "larger" selects the smaller ones.
                match condition.operator:
                    case ">=":
                        met &= maxima >= condition.threshold
                    case "<=":
                        met &= maxima <= condition.threshold
                    case _:
                        raise InvalidEdit(
                            f"operator {condition.operator!r} of a latent condition: allowed are >= and <="
                        )
            case "predicted_class":
                unknown = sorted(set(condition.class_names) - set(class_names))
                if unknown:
                    raise InvalidEdit(
                        f"condition on predicted class {unknown}: not in the class set {list(class_names)}"
                    )
                # numpy promises the first of equal maxima, as `Prediction.top` does; torch does not.
                top = np.argmax(_known(logits), axis=1)
                wanted = [class_names.index(name) for name in condition.class_names]
                met &= torch.from_numpy(np.isin(top, wanted))
            case "margin":
                ordered = np.sort(_known(logits), axis=1)
                if ordered.shape[1] < 2:
                    met &= False  # the margin of an only class is +inf
                else:
                    met &= torch.from_numpy(ordered[:, -1] - ordered[:, -2] < condition.below)
            case _:
                assert_never(condition.kind)
    return met


def _known(logits: Tensor | None) -> np.ndarray:
    if logits is None:
        raise InvalidEdit("a condition on the prediction needs a class set, and none was given")
    return logits.detach().double().cpu().numpy()
