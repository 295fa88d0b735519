"""What is kept of an image: its activations at a hook point, and the model's unedited answer from there."""

import hashlib
import threading
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from fulcrum.engine.byte_lru import ByteLru, CacheCounts
from fulcrum.engine.encoding import computed_by
from fulcrum.engine.residency import Steerable
from fulcrum.engine.scopes import current_scope
from fulcrum.science.sae.sparse import SparseLatents
from fulcrum.science.steering.forward import suffix_embeddings
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.split import HookState, SplitTower

# model with its weights, hook point, preprocessing, image, dtype, deterministic
_Key = tuple[Hashable, str, str, str, str, bool]


class ImageState:
    """Activations of one image, (1, n_tokens, d_in), with the embedding that they lead to when nothing is edited.

    `key` is what they follow from.
    """

    def __init__(self, hook: HookState, key: _Key) -> None:
        self.hook, self.key = hook, key
        self._unedited: Tensor | None = None
        self._lock = threading.Lock()

    def unedited(self, tower: SplitTower) -> Tensor:
        """(1, d_embed), not normalised; runs once. `tower` is the one that made the activations."""
        if self._unedited is None:
            only = torch.zeros(1, dtype=torch.long, device=self.hook.x.device)
            embedding = suffix_embeddings(tower, self.hook, self.hook.x, only)
            # Not held while the suffix runs: a caller who leaves must not hold others up. The first one stays.
            with self._lock:
                if self._unedited is None:
                    self._unedited = embedding
        return self._unedited

    @property
    def size_bytes(self) -> int:
        """Of the activations; the embedding is less than one token of them."""
        tensors = [self.hook.x] if self.hook.carry is None else [self.hook.x, self.hook.carry]
        return sum(t.numel() * t.element_size() for t in tensors)


class ImageStates:
    """A cache of `budget_bytes` of them, and of a quarter of that beside for their latents.

    `pixels` decodes and preprocesses; `by_mode`: deterministic requests share nothing with free ones.
    """

    def __init__(
        self, budget_bytes: int, pixels: Callable[[LoadedModel, list[bytes]], Tensor], by_mode: bool
    ) -> None:
        self._pixels, self._by_mode = pixels, by_mode
        self._kept: ByteLru[_Key, ImageState] = ByteLru(budget_bytes)
        # By the weights of the SAE too: several read the same activations.
        self._latents: ByteLru[tuple[_Key, str], SparseLatents] = ByteLru(budget_bytes // 4)

    @property
    def counts(self) -> CacheCounts:
        """Hits and misses."""
        return self._kept.counts

    def of(self, steerable: Steerable, image: bytes) -> ImageState:
        """The image at the SAE's hook point. Raises UnreadableImage, ImageTooLarge."""
        figures = current_scope().figures
        figures.prefix_cached = True
        key = self._key(steerable, image)

        def make() -> tuple[ImageState, int]:
            figures.prefix_cached = False
            loaded = steerable.loaded
            with torch.no_grad():
                state = steerable.tower.prefix(self._pixels(loaded, [image]).to(loaded.dtype))
            made = ImageState(state, key)
            return made, made.size_bytes

        return self._kept.get_or_make(key, make)

    def latents(self, steerable: Steerable, kept: ImageState) -> SparseLatents:
        """Of all tokens of an image. A wide SAE costs as much as the suffix does, and every question needs them."""

        def make() -> tuple[SparseLatents, int]:
            sae = steerable.sae
            with torch.no_grad():
                sparse = sae.encode_sparse(kept.hook.x[0].to(sae.W_dec.dtype))
            return sparse, sum(
                t.numel() * t.element_size() for t in (sparse.offsets, sparse.latents, sparse.values)
            )

        return self._latents.get_or_make((kept.key, steerable.sae_info.weights_sha256), make)

    def _key(self, steerable: Steerable, image: bytes) -> _Key:
        info = steerable.loaded.info
        return (
            computed_by(steerable.loaded),
            str(steerable.tower.hook_point),
            info.preprocess_sha256,
            hashlib.sha256(image).hexdigest(),
            info.dtype,
            # Made beside others, an activation may have other bits: a deterministic request must not find it.
            self._by_mode and current_scope().deterministic,
        )
