"""Everything a validation may be given.

Arrays with one row per image, and what is known about their origin.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from fulcrum.science.validation.image_sets import ImageSet
from fulcrum.science.validation.looks import Looks
from fulcrum.science.validation.ripple import Move
from fulcrum.science.validation.stale import Subject
from fulcrum.science.validation.verdict import Split


@dataclass(frozen=True)
class ValidationInput:
    """Base and corrected logits of n images, their labels, and optionally what else was measured.

    Required: `base_logits`, `corrected_logits` (n, n_classes) floats that include the logit scale; `labels`
    (n,) class numbers with -1 for none; `class_names`; `split`, the split that is judged.

    * `splits` (n,) names of splits; images of other splits than `split` are not judged, those of "discover"
      count as those on which the correction was found. None: all images are of `split`.
    * `seen` (n,) bool: images that were looked at when the correction was made. They never count as unseen,
      nor do images that share a cluster with one.
    * `target` (n,) bool: the failure mode's cue is there (not: the base model fails). None: every image.
    * `condition_met` (n,) bool: the correction's condition holds. None: everywhere.
    * `same_class_without_cue`, `same_cue_legitimate` (n,) bool: the two neighbourhoods of specificity. The
      first defaults to the images outside `target` whose label occurs among the labels inside.
    * `groups`: columns of values, one per image; None or "" is no group. `clusters` (n,): duplicates share a
      value.
    * `image_sets`: images that somebody chose, each a slice; invariant lists are gates too.
    * `base_embeddings`, `corrected_embeddings` (n, d); `concept_bank`: name -> text embedding (d,).
    * `latents`: other latents after re-encoding x', from `ripple.moves` or `ripple.moves_from_counts`.
    * `control_gains`: kind -> net gains (n_controls,) on the judged images of the failure mode; or
      `control_predictions`: kind -> (n_controls, n) predicted classes, from which the gains are counted.
    * `repeat_logits`: the base model once more at another batch size; `identity_logits`: under the identity
      correction.
    * `looks` so far, without this one; `subject` what the verdict will belong to; `provenance` passed
      through.
    """

    base_logits: NDArray[Any]
    corrected_logits: NDArray[Any]
    labels: NDArray[Any] | None
    class_names: tuple[str, ...]
    split: Split
    image_ids: Sequence[str] | None = None
    splits: Sequence[str] | NDArray[Any] | None = None
    seen: NDArray[Any] | None = None
    target: NDArray[Any] | None = None
    condition_met: NDArray[Any] | None = None
    same_class_without_cue: NDArray[Any] | None = None
    same_cue_legitimate: NDArray[Any] | None = None
    groups: Mapping[str, Sequence[Any] | NDArray[Any]] = field(default_factory=dict)
    clusters: Sequence[Any] | NDArray[Any] | None = None
    image_sets: tuple[ImageSet, ...] = ()
    base_embeddings: NDArray[Any] | None = None
    corrected_embeddings: NDArray[Any] | None = None
    concept_bank: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    latents: tuple[Move, ...] = ()
    control_gains: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    control_predictions: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    repeat_logits: NDArray[Any] | None = None
    identity_logits: NDArray[Any] | None = None
    looks: Looks = field(default_factory=Looks)
    subject: Subject | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
