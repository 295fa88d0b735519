"""Answers as the SDK hands them out: the domain's values with what was asked, as arrays, tables and pictures."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from fulcrum.client import display, tables
from fulcrum.domain.corrections import Correction, Origin
from fulcrum.domain.edits import Condition, Edit, Scope
from fulcrum.domain.errors import InvalidRequest, LatentOutOfRange
from fulcrum.domain.provenance import Provenance
from fulcrum.domain.records import ImageRecord, ModelRecord, SaeRecord
from fulcrum.domain.results import (
    Attribution,
    DoseResponse,
    Effect,
    FloatArray,
    LatentAttribution,
    Prediction,
    SteeredPrediction,
    Suggestion,
)
from fulcrum.domain.tasks import ClassSet

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What the gateway says to a question; it is stored under `result_id`."""

    result_id: str
    value: T
    provenance: Provenance


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What the gateway says without storing it."""

    value: T
    provenance: Provenance


@dataclass(frozen=True)
class Explanation:
    """Which latents carried a prediction; `steer`, `sweep` and `suggest` take it in place of image, SAE and prompts."""

    result_id: str
    image: ImageRecord
    sae: SaeRecord
    task: ClassSet
    attribution: Attribution
    provenance: Provenance
    labels: Mapping[int, str] = field(default_factory=dict)  # what latents stand for, for display

    @property
    def prediction(self) -> Prediction:
        """The model's answer that is explained."""
        return self.attribution.prediction

    @property
    def latents(self) -> tuple[LatentAttribution, ...]:
        """By |score|, largest first."""
        return self.attribution.latents

    def __getitem__(self, latent: int) -> LatentAttribution:
        """One latent's share. Raises LatentOutOfRange for one that is not among the explained."""
        for found in self.latents:
            if found.latent == latent:
                return found
        raise LatentOutOfRange(
            f"latent {latent} is not among the {len(self.latents)} explained ones: ask for more with n_latents"
        )

    def heatmap(self, latent: int) -> FloatArray:
        """Score of each patch (rows, columns), without CLS. Needs an explanation with `per_token=True`."""
        per_token = self[latent].per_token
        if per_token is None:
            raise InvalidRequest("there is no score per token: explain with per_token=True")
        rows, columns = self.attribution.grid
        return np.asarray(per_token, dtype=np.float64)[-rows * columns :].reshape(rows, columns)

    def with_labels(self, labels: Mapping[int, str]) -> "Explanation":
        """The same with words for latents, such as `client.concepts.labels(sae)`."""
        return dataclasses.replace(self, labels=dict(labels))

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """A structured array of the latents; `measured_effect` is nan where it was not measured."""
        return tables.latents_array(self.latents)

    def to_pandas(self) -> "pd.DataFrame":
        """A table of the latents, indexed by latent. Raises MissingDependency without pandas."""
        return tables.latents_frame(self.latents, self.labels)

    def __repr__(self) -> str:
        shown = f"{self.image.filename!r} -> {self.prediction.top!r}, {len(self.latents)} latents"
        return f"Explanation({shown}, {self.result_id})"

    def _repr_html_(self) -> str:
        return display.explanation_html(self.image.filename, self.attribution, self.labels)


@dataclass(frozen=True)
class Steering:
    """An image before and after edits."""

    result_id: str
    image: ImageRecord
    sae: SaeRecord
    task: ClassSet
    edits: tuple[Edit, ...]
    effect: Effect
    provenance: Provenance
    scope: Scope = field(default_factory=Scope)
    conditions: tuple[Condition, ...] = ()
    drop_error: bool = False

    @property
    def before(self) -> Prediction:
        """The model's untouched answer."""
        return self.effect.before

    @property
    def after(self) -> Prediction:
        """Its answer under the edits."""
        return self.effect.after

    @property
    def flipped(self) -> bool:
        """Whether the predicted class changed."""
        return self.effect.flipped

    @property
    def correction(self) -> Correction:
        """The edits as a correction of exactly the weights that answered, found on this image."""
        sha256, hook_point = self.provenance.sae_sha256, self.provenance.hook_point
        if sha256 is None or hook_point is None:
            raise InvalidRequest(
                "the answer does not say which SAE took part, so it cannot become a correction"
            )
        return Correction(
            model_sha256=self.provenance.model_sha256,
            sae_sha256=sha256,
            hook_point=hook_point,
            edits=self.edits,
            scope=self.scope,
            conditions=self.conditions,
            task=self.task,
            origin=Origin("manual", (self.image.sha256,)),
            drop_error=self.drop_error,
        )

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """A structured array with a row for each class: probabilities and logits before and after."""
        return tables.effect_array(self.before, self.after)

    def to_pandas(self) -> "pd.DataFrame":
        """The same as a table, indexed by class. Raises MissingDependency without pandas."""
        return tables.effect_frame(self.before, self.after)

    def __repr__(self) -> str:
        turned = f"{self.before.top!r} -> {self.after.top!r}"
        return f"Steering({self.image.filename!r}: {turned}, {len(self.edits)} edits, {self.result_id})"

    def _repr_html_(self) -> str:
        return display.steering_html(self.image.filename, self.edits, self.effect)


@dataclass(frozen=True)
class DosePoints:
    """Some points of a curve, as they were computed."""

    gains: FloatArray  # (n,)
    logits: FloatArray  # (n, n_classes)
    target_values: FloatArray  # (n,)


@dataclass(frozen=True)
class DoseCurve:
    """The model's answer over a grid of gains."""

    result_id: str
    image: ImageRecord
    sae: SaeRecord
    latents: tuple[int, ...]
    response: DoseResponse
    provenance: Provenance

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """Columns: gain, target value, then the logit of each class in order (n_gains, 2 + n_classes)."""
        return tables.curve_array(self.response)

    def to_pandas(self) -> "pd.DataFrame":
        """Indexed by gain: `target` and a logit for each class. Raises MissingDependency without pandas."""
        return tables.curve_frame(self.response)

    def __repr__(self) -> str:
        return f"DoseCurve(latents {list(self.latents)}, {len(self.response.gains)} gains, {self.result_id})"

    def _repr_html_(self) -> str:
        return display.curve_html(self.latents, self.response)


@dataclass(frozen=True)
class Suggestions(Sequence[Suggestion]):
    """All suggestions of a search, in the order in which they were found."""

    result_id: str
    image: ImageRecord
    sae: SaeRecord
    wanted: str
    items: tuple[Suggestion, ...]
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __iter__(self) -> Iterator[Suggestion]:
        return iter(self.items)

    def __repr__(self) -> str:
        return f"Suggestions({len(self)} to {self.wanted!r}, {self.result_id})"

    def _repr_html_(self) -> str:
        return display.suggestions_html(self.wanted, self.items)


@dataclass(frozen=True)
class Predictions:
    """Predictions of many images, in their order; with a correction, before and after."""

    result_ids: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    model: ModelRecord
    task: ClassSet
    before: tuple[Prediction, ...]
    after: tuple[Prediction, ...] | None  # None where no correction was asked about
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pairs(self) -> tuple[tuple[Prediction, Prediction], ...]:
        """(before, after) of each image. Raises InvalidRequest where no correction was asked about."""
        if self.after is None:
            raise InvalidRequest("there is no `after`: predict with a correction")
        return tuple(zip(self.before, self.after, strict=True))

    def to_numpy(self) -> FloatArray:
        """Probabilities (n_images, n_classes), after the correction where there is one."""
        return np.stack([p.probs for p in (self.after or self.before)])

    def to_pandas(self) -> "pd.DataFrame":
        """One row for each image. Raises MissingDependency without pandas."""
        return tables.predictions_frame([i.filename for i in self.images], self.before, self.after)

    def __repr__(self) -> str:
        both = "" if self.after is None else " before and after"
        return f"Predictions({len(self)} images{both}, {self.model.name!r})"

    def _repr_html_(self) -> str:
        return display.predictions_html([i.filename for i in self.images], self.before, self.after)


def split(values: Sequence[Prediction | SteeredPrediction]) -> tuple[list[Prediction], list[Prediction]]:
    """Before and after; after is empty for plain predictions."""
    before = [v if isinstance(v, Prediction) else v.before for v in values]
    return before, [v.after for v in values if isinstance(v, SteeredPrediction)]
