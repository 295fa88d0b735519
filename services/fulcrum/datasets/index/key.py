"""What an index is of, and how it is laid out."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from fulcrum.domain.errors import InvalidSettings

VERSION: Final = 3  # of the files of an index and the numbers in them
_SHARD_FIELDS: Final = (
    "n_tokens",
    "d_sae",
    "has_cls",
    "d_embed",
    "value_dtype",
    "d_in",
    "activation_dtype",
)  # of the layout


@dataclass(frozen=True)
class IndexKey:
    """Everything that determines the numbers in an index; any change of it makes another index."""

    model_sha256: str
    sae_sha256: str
    hook_point: str
    preprocess_sha256: str
    dataset_digest: str
    # Another device or precision rounds otherwise, and a TopK SAE turns the last bit into another set of latents.
    device_type: str = "cpu"
    dtype: str = "float32"

    @property
    def sha256(self) -> str:
        """One name for them all."""
        return _digest(dataclasses.asdict(self))

    def shard_keys(self, layout: "IndexLayout", images_sha256: Sequence[str]) -> tuple[str, ...]:
        """A name for each shard made of all that determines its bytes: the images in it, not the whole data set.

        A data set that grew at its end keeps the keys of its full shards. Activations are kept of the first
        `layout.n_kept` images.
        """
        assert len(images_sha256) == layout.n_images
        shared = {name: v for name, v in dataclasses.asdict(self).items() if name != "dataset_digest"}
        shared |= {name: getattr(layout, name) for name in _SHARD_FIELDS}
        if layout.dense:
            shared["dense"] = True
        keys = []
        for shard in range(layout.n_shards):
            images = layout.shard_range(shard)
            n_kept = max(0, min(images.stop, layout.n_kept) - images.start)
            of_images = list(images_sha256[images.start : images.stop])
            keys.append(_digest(shared | {"version": VERSION, "n_kept": n_kept, "images": of_images}))
        return tuple(keys)


@dataclass(frozen=True)
class IndexLayout:
    """Sizes and types. `n_tokens` is per image and includes CLS (token 0) when `has_cls`.

    `value_dtype` float32 keeps latents exactly; float16 halves them, rounded to 11 bits. `images_per_shard`
    bounds the writer's memory (a shard is sorted in memory) and the work lost by a crash. `d_in` > 0 keeps
    activations (n_tokens, d_in) at the hook point for as many images as `activation_budget_bytes` holds.

    A `dense` index is one of units of a layer, which answer everywhere and with both signs: of an image it keeps
    their maxima, and none of the tokens.
    """

    n_images: int
    n_tokens: int
    d_sae: int
    has_cls: bool = True
    d_embed: int = 0
    value_dtype: Literal["float32", "float16"] = "float32"
    images_per_shard: int = 1024
    d_in: int = 0
    activation_dtype: Literal["float32", "float16"] = "float32"
    activation_budget_bytes: int = 0
    dense: bool = False

    def __post_init__(self) -> None:
        for name in ("n_images", "n_tokens", "d_sae", "images_per_shard"):
            if getattr(self, name) < 1:
                raise InvalidSettings(f"{name} of an index must be >= 1, got {getattr(self, name)}")
        for name in ("d_embed", "d_in", "activation_budget_bytes"):
            if getattr(self, name) < 0:
                raise InvalidSettings(f"{name} of an index must be >= 0, got {getattr(self, name)}")
        for name in ("value_dtype", "activation_dtype"):
            if getattr(self, name) not in ("float32", "float16"):
                raise InvalidSettings(f"{name} must be float32 or float16, got {getattr(self, name)!r}")
        if self.has_cls and self.n_tokens < 2:
            raise InvalidSettings("an index with CLS needs at least one patch token besides it")

    def as_dict(self) -> dict[str, Any]:
        """For the manifest; of an index of latents as it was before there were others."""
        content = dataclasses.asdict(self)
        if not self.dense:
            del content["dense"]
        return content

    @property
    def n_shards(self) -> int:
        """Shards that a complete index has."""
        return -(-self.n_images // self.images_per_shard)

    def shard_range(self, shard: int) -> range:
        """Numbers of the images in a shard."""
        start = shard * self.images_per_shard
        return range(start, min(start + self.images_per_shard, self.n_images))

    @property
    def latent_dtype(self) -> str:
        """Smallest unsigned type that holds a latent."""
        return _unsigned(self.d_sae - 1)

    @property
    def token_dtype(self) -> str:
        """Smallest unsigned type that holds a token."""
        return _unsigned(self.n_tokens - 1)

    @property
    def n_kept(self) -> int:
        """How many images' activations the budget holds."""
        if self.d_in == 0:
            return 0
        itemsize = 4 if self.activation_dtype == "float32" else 2
        return min(self.n_images, self.activation_budget_bytes // (self.n_tokens * self.d_in * itemsize))


def _unsigned(largest: int) -> str:
    return "<u1" if largest < 1 << 8 else "<u2" if largest < 1 << 16 else "<u4"


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
