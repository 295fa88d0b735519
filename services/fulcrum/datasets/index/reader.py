"""Reading an index: memory-mapped, both ways round."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.index.array_file import ArrayFile, open_array_file, write_array_file
from fulcrum.datasets.index.key import VERSION, IndexKey, IndexLayout
from fulcrum.datasets.index.shards import gather
from fulcrum.datasets.index.statistics import LatentStatistics
from fulcrum.datasets.index.units import unit_maxima
from fulcrum.domain.edits import Scope
from fulcrum.domain.engine import ImageLatents
from fulcrum.domain.errors import CorruptIndex, InvalidEdit, InvalidSettings, LatentOutOfRange, NotFound

Array = NDArray[Any]
Numbers = NDArray[np.int64]

INDEX_FILE: Final = "index.json"
# Up to here all checksums are tested on opening; it takes well under a second.
VERIFY_UP_TO_BYTES: Final = 256 << 20
_EVERYWHERE: Final = Scope()
_CLASS_SET = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True)
class Postings:
    """Where one latent fires: image `images[i]` owns `offsets[i]:offsets[i+1]` of tokens and values."""

    latent: int
    images: Numbers  # (n,) ascending
    offsets: Numbers  # (n + 1,)
    tokens: Numbers  # ascending within an image
    values: NDArray[np.float32]


class LatentIndex:
    """Sparse latents of a data set. Image numbers are positions in the data set (`Dataset.samples`).

    Values come back as float32. Nothing is read before it is asked for; safe to read from several threads.
    """

    def __init__(
        self, folder: Path, key: IndexKey, layout: IndexLayout, files: dict[str, tuple[int, str]]
    ) -> None:
        """Use `LatentIndex.open`."""
        self.folder, self.key, self.layout = folder, key, layout
        self._files = files
        self._open: dict[str, ArrayFile] = {}

    @classmethod
    def open(
        cls, folder: str | Path, key: IndexKey | None = None, *, verify: bool | None = None
    ) -> "LatentIndex":
        """Checks the manifest and the files' sizes, and with `verify` all checksums (None: up to 256 MiB).

        Raises NotFound when there is no index, CorruptIndex when it is incomplete, altered, of another
        version, or not of `key`.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise NotFound(f"no latent index at {str(folder)!r}")
        index = cls(folder, *_read_manifest(folder))
        if key is not None and index.key != key:
            names = [n for n, v in vars(key).items() if getattr(index.key, n) != v]
            raise CorruptIndex(f"the index in {folder.name!r} is of another {', '.join(names)}")
        for name in index._files:
            index._file(name)
        if verify or (verify is None and index.size_bytes <= VERIFY_UP_TO_BYTES):
            index.verify()
        return index

    def verify(self) -> None:
        """Reads everything once and compares checksums. Raises CorruptIndex."""
        for name in self._files:
            self._file(name).verify()

    # -- image -> latents

    def image(self, number: int) -> ImageLatents:
        """Sparse latents of one image's tokens."""
        return self.images([number])

    def images(self, numbers: Sequence[int] | Array) -> ImageLatents:
        """Sparse latents of several images, their tokens one after another in the order of `numbers`."""
        self._need_tokens()
        wanted = self._checked(numbers)
        layout = self.layout
        latents: list[Array] = []
        values: list[Array] = []
        counts = np.zeros((wanted.size, layout.n_tokens), dtype=np.int64)
        for i, number in enumerate(wanted):
            arrays, row = self._locate(int(number))
            first, last = int(arrays["image_offsets"][row]), int(arrays["image_offsets"][row + 1])
            bounds = arrays["pair_offsets"][first : last + 1].astype(np.int64)
            tokens = arrays["tokens"][bounds[0] : bounds[-1]]
            # Stable: entries are stored by latent, so latents come out ascending within a token.
            order = np.argsort(tokens, kind="stable")
            latents.append(np.repeat(arrays["pair_latents"][first:last], np.diff(bounds))[order])
            values.append(arrays["values"][bounds[0] : bounds[-1]][order])
            counts[i] = np.bincount(tokens, minlength=layout.n_tokens)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return ImageLatents(
            offsets,
            np.concatenate([*latents, np.zeros(0, np.uint8)]).astype(np.int64),
            np.concatenate([*values, np.zeros(0, np.float16)]).astype(np.float32),
            layout.d_sae,
        )

    # -- latent -> images

    def postings(self, latent: int) -> Postings:
        """Every image, token and value of one latent; entries of other latents are not read."""
        self._need_tokens()
        self._check_latent(latent)
        images, counts, tokens, values = [], [], [], []
        for start, arrays, posting in self._postings(latent):
            entries, n = gather(arrays["pair_offsets"], arrays["posting_pairs"][posting].astype(np.int64))
            images.append(start + arrays["posting_images"][posting].astype(np.int64))
            counts.append(n)
            tokens.append(np.asarray(arrays["tokens"][entries]))
            values.append(np.asarray(arrays["values"][entries]))
        return Postings(
            latent,
            _joined(images, np.int64),
            np.concatenate([[0], np.cumsum(_joined(counts, np.int64))]).astype(np.int64),
            _joined(tokens, np.int64),
            _joined(values, np.float32),
        )

    def image_max(self, latent: int, scope: Scope = _EVERYWHERE) -> tuple[Numbers, NDArray[np.float32]]:
        """(images in which the latent fires in scope, ascending; its largest value there).

        Of a dense index all images, with maxima of either sign.
        """
        self._check_latent(latent)
        self._check_scope(scope)
        if self.layout.dense:
            return np.arange(self.layout.n_images), self._unit_max(latent, scope)
        if scope.kind == "patch_list":
            return self._patch_list_max(latent, scope)
        images, maxima = [], []
        for start, arrays, posting in self._postings(latent):
            largest = _scoped_max(arrays, posting, scope)
            fires = largest > 0
            images.append(start + arrays["posting_images"][posting][fires].astype(np.int64))
            maxima.append(largest[fires])
        return _joined(images, np.int64), _joined(maxima, np.float32)

    def image_maxima(self, scope: Scope = _EVERYWHERE) -> tuple[Numbers, Numbers, NDArray[np.float32]]:
        """(latents, images, values) of every latent that fires in an image, its largest value there; in no order.

        `patch_list` is refused (InvalidEdit): its maxima are not stored.
        """
        self._need_tokens()
        self._check_scope(scope)
        if scope.kind == "patch_list":
            raise InvalidEdit("maxima of all latents are stored for all tokens, CLS and patches only")
        latents, images, values = [], [], []
        for shard in range(self.layout.n_shards):
            arrays = self._shard(shard)
            largest = _scoped_max(arrays, slice(None), scope)
            fires = largest > 0
            offsets = np.asarray(arrays["posting_offsets"], dtype=np.int64)
            of_latent = offsets[1:] - offsets[:-1]
            latents.append(np.repeat(np.arange(self.layout.d_sae), of_latent)[fires])
            images.append(
                shard * self.layout.images_per_shard + arrays["posting_images"][fires].astype(np.int64)
            )
            values.append(largest[fires])
        return _joined(latents, np.int64), _joined(images, np.int64), _joined(values, np.float32)

    def image_sum(self, latent: int) -> tuple[Numbers, NDArray[np.float64]]:
        """(images in which the latent fires, sum over their tokens); divide by n_tokens for the mean."""
        found = self.postings(latent)
        if found.images.size == 0:
            return found.images, np.zeros(0)
        return found.images, np.add.reduceat(found.values.astype(np.float64), found.offsets[:-1])

    def affected(
        self,
        latents: Sequence[int] | Array,
        scope: Scope = _EVERYWHERE,
        thresholds: float | Sequence[float] | Array = 0.0,
    ) -> Numbers:
        """Images, ascending, where a listed latent exceeds its threshold (0: fires) on a token in scope.

        One threshold for all latents, or one for each. Exactly the images which an edit that acts only where
        its latent fires can change; for `cap` the threshold is the cap. Of a dense index every image that may be
        one: units are hardly ever 0. Raises LatentOutOfRange, InvalidEdit (scope).
        """
        chosen = np.atleast_1d(np.asarray(latents, dtype=np.int64))
        limits = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), chosen.shape)
        if np.any(limits < 0) or not np.all(np.isfinite(limits)):
            raise InvalidSettings(
                f"thresholds must be finite and >= 0 (latents that fire), got {limits.min()}"
            )
        hit = np.zeros(self.layout.n_images, dtype=bool)
        if self.layout.dense:
            self._check_scope(scope)
            for latent in chosen:
                self._check_latent(int(latent))
            if chosen.size and (np.any(limits == 0) or scope.kind == "patch_list"):
                return np.arange(self.layout.n_images)
        for latent, limit in zip(chosen, limits, strict=True):
            images, maxima = self.image_max(int(latent), scope)
            hit[images[maxima > limit]] = True
        return np.flatnonzero(hit).astype(np.int64)

    def top_images(
        self, latent: int, n: int, scope: Scope = _EVERYWHERE, *, by: Literal["max", "mean"] = "max"
    ) -> tuple[Numbers, NDArray[np.float64]]:
        """Up to n images where the latent is largest, best first, equal ones by number; with the value.

        `mean` is over all tokens of the image and takes no scope.
        """
        if by == "mean":
            if scope != _EVERYWHERE:
                raise InvalidSettings("top images by mean are over all tokens: scope must be 'all'")
            images, sums = self.image_sum(latent)
            values = sums / self.layout.n_tokens
        else:
            images, maxima = self.image_max(latent, scope)
            values = maxima.astype(np.float64)
        best = np.argsort(-values, kind="stable")[: max(0, n)]
        return images[best], values[best]

    def quantile(self, latent: int, q: float) -> float:
        """Exact quantile of the latent's active values; 0 when it never fires."""
        values = self.postings(latent).values
        return float(np.quantile(values.astype(np.float64), q)) if values.size else 0.0

    # -- what is stored beside the latents

    @cached_property
    def statistics(self) -> LatentStatistics:
        """Per-latent statistics, memory-mapped."""
        file = self._file("statistics.arrays")
        return LatentStatistics(file.meta["n_images"], file.meta["n_tokens"], **file.arrays)

    def embeddings(self, numbers: Sequence[int] | Array | None = None) -> NDArray[np.float32]:
        """(n, d_embed) image embeddings; None for all. Raises NotFound when the index has none."""
        if self.layout.d_embed == 0:
            raise NotFound("the index was built without embeddings")
        if numbers is None:
            parts = [self._shard(s)["embeddings"] for s in range(self.layout.n_shards)]
            return np.concatenate(parts)
        wanted = self._checked(numbers)
        out = np.empty((wanted.size, self.layout.d_embed), dtype=np.float32)
        for shard in np.unique(wanted // self.layout.images_per_shard):
            rows = np.flatnonzero(wanted // self.layout.images_per_shard == shard)
            out[rows] = self._shard(int(shard))["embeddings"][wanted[rows] % self.layout.images_per_shard]
        return out

    def activations(self, number: int) -> Array | None:
        """(n_tokens, d_in) at the hook point, memory-mapped, or None where they were not kept."""
        arrays, place = self._locate(int(self._checked([number])[0]))
        kept = arrays.get("activation_images")
        if kept is None:
            return None
        row = int(np.searchsorted(kept, place))
        return arrays["activations"][row] if row < kept.size and kept[row] == place else None

    def put_logits(self, class_set_sha256: str, logits: Array) -> None:
        """Stores base logits (n_images, n_classes) of a class set; replaces what was there."""
        path = self._logits_path(class_set_sha256)
        stored = np.asarray(logits, dtype=np.float32)
        if stored.ndim != 2 or stored.shape[0] != self.layout.n_images:
            raise InvalidSettings(f"logits must be ({self.layout.n_images}, n_classes), got {stored.shape}")
        write_array_file(path, "logits", {"logits": stored}, {"key_sha256": self.key.sha256})

    def logits(self, class_set_sha256: str) -> NDArray[np.float32] | None:
        """(n_images, n_classes), memory-mapped, or None when they were never stored. Raises CorruptIndex."""
        path = self._logits_path(class_set_sha256)
        if not path.exists():
            return None
        file = open_array_file(path, "logits")
        if file.meta.get("key_sha256") != self.key.sha256:
            raise CorruptIndex(f"{path.name} belongs to another index")
        file.verify()
        return file.arrays["logits"]

    @property
    def size_bytes(self) -> int:
        """Size of the index without logits."""
        return sum(size for size, _ in self._files.values())

    @property
    def bytes_per_image(self) -> dict[str, float]:
        """Size by purpose, divided by the number of images."""
        sizes = {"latents": 0, "postings": 0, "embeddings": 0, "activations": 0}
        for shard in range(self.layout.n_shards):
            for name, array in self._shard(shard).items():
                purpose = "activations" if name.startswith("activation") else name.split("_")[0]
                sizes[{"posting": "postings"}.get(purpose, purpose if purpose in sizes else "latents")] += (
                    array.nbytes
                )
        return {
            **{k: v / self.layout.n_images for k, v in sizes.items()},
            "total": self.size_bytes / self.layout.n_images,
        }

    # -- inside

    def _file(self, name: str) -> ArrayFile:
        if name not in self._open:
            size, header = self._files[name]
            file = open_array_file(
                self.folder / name, "statistics" if name == "statistics.arrays" else "shard"
            )
            if (file.size_bytes, file.header_sha256) != (size, header):
                raise CorruptIndex(f"{name} is not the file that the index was finished with")
            self._open[name] = file
        return self._open[name]

    def _shard(self, shard: int) -> dict[str, Array]:
        return self._file(shard_name(shard)).arrays

    def _locate(self, number: int) -> tuple[dict[str, Array], int]:
        shard, row = divmod(number, self.layout.images_per_shard)
        return self._shard(shard), row

    def _postings(self, latent: int) -> list[tuple[int, dict[str, Array], slice]]:
        found = []
        for shard in range(self.layout.n_shards):
            arrays = self._shard(shard)
            first, last = (int(n) for n in arrays["posting_offsets"][latent : latent + 2])
            if last > first:
                found.append((shard * self.layout.images_per_shard, arrays, slice(first, last)))
        return found

    def _patch_list_max(self, latent: int, scope: Scope) -> tuple[Numbers, NDArray[np.float32]]:
        found = self.postings(latent)
        if found.images.size == 0:
            return found.images, found.values
        wanted = np.asarray(scope.patches, dtype=np.int64) + self.layout.has_cls
        values = np.where(np.isin(found.tokens, wanted), found.values, np.float32(0))
        maxima = np.maximum.reduceat(values, found.offsets[:-1])
        return found.images[maxima > 0], maxima[maxima > 0]

    def _checked(self, numbers: Sequence[int] | Array) -> Numbers:
        wanted = np.asarray(numbers, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.layout.n_images):
            raise InvalidSettings(
                f"image numbers must be 0 .. {self.layout.n_images - 1}, got {wanted.min()} .. {wanted.max()}"
            )
        return wanted

    def _need_tokens(self) -> None:
        if self.layout.dense:
            raise InvalidSettings("an index of units keeps the maxima of images and no tokens")

    def _unit_max(self, latent: int, scope: Scope) -> NDArray[np.float32]:
        if scope.kind == "patch_list":
            raise InvalidEdit("maxima of units are stored for all tokens, CLS and patches only")
        parts = [unit_maxima(self._shard(s), scope.kind)[:, latent] for s in range(self.layout.n_shards)]
        return _joined(parts, np.float32)

    def _check_latent(self, latent: int) -> None:
        if not 0 <= latent < self.layout.d_sae:
            raise LatentOutOfRange(f"latent {latent} is outside of 0 .. {self.layout.d_sae - 1}")

    def _check_scope(self, scope: Scope) -> None:
        if scope.kind == "cls" and not self.layout.has_cls:
            raise InvalidEdit("scope 'cls': this model has no CLS token")
        n_patches = self.layout.n_tokens - self.layout.has_cls
        if scope.patches and max(scope.patches) >= n_patches:
            raise InvalidEdit(f"patches must be 0 .. {n_patches - 1}, got {max(scope.patches)}")

    def _logits_path(self, class_set_sha256: str) -> Path:
        if not _CLASS_SET.fullmatch(class_set_sha256):
            raise InvalidSettings(
                f"a class set is named by the hex digest of its content, got {class_set_sha256!r}"
            )
        return self.folder / f"logits-{class_set_sha256}.arrays"


def shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"shard-{shard:06d}.arrays"


def manifest_checksum(manifest: dict[str, Any]) -> str:
    """sha256 of the manifest's content."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read_manifest(folder: Path) -> tuple[IndexKey, IndexLayout, dict[str, tuple[int, str]]]:
    path = folder / INDEX_FILE
    if not path.exists():
        raise CorruptIndex(
            f"the index in {folder.name!r} is incomplete: it has no {INDEX_FILE}; continue building it"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        checksum = content.pop("checksum")
        if content["version"] != VERSION:
            raise CorruptIndex(f"the index is of version {content['version']!r}, this reads {VERSION}")
        if checksum != manifest_checksum(content):
            raise CorruptIndex(f"{INDEX_FILE} in {folder.name!r} was altered: its checksum is wrong")
        key, layout = IndexKey(**content["key"]), IndexLayout(**content["layout"])
        files = {f["name"]: (int(f["size_bytes"]), str(f["header_sha256"])) for f in content["files"]}
    except (ValueError, KeyError, TypeError, AttributeError, InvalidSettings) as error:
        raise CorruptIndex(f"{INDEX_FILE} in {folder.name!r} is malformed: {error}") from error
    expected = {shard_name(s) for s in range(layout.n_shards)} | {"statistics.arrays"}
    if set(files) != expected:
        raise CorruptIndex(f"{INDEX_FILE} in {folder.name!r} does not list the shards of its layout")
    return key, layout, files


def _scoped_max(arrays: dict[str, Array], posting: slice, scope: Scope) -> Array:
    match scope.kind:
        case "cls":
            return arrays["posting_max_cls"][posting]
        case "patches":
            return arrays["posting_max_patches"][posting]
        case _:
            return np.maximum(arrays["posting_max_cls"][posting], arrays["posting_max_patches"][posting])


def _joined(parts: list[Array], dtype: Any) -> Array:
    return np.concatenate([*parts, np.zeros(0, dtype)]).astype(dtype) if parts else np.zeros(0, dtype)
