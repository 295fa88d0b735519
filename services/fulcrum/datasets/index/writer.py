"""Building an index: shard after shard, resumable, with several writers if need be."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.index.array_file import open_array_file, write_array_file, write_json
from fulcrum.datasets.index.key import VERSION, IndexKey, IndexLayout
from fulcrum.datasets.index.reader import INDEX_FILE, LatentIndex, manifest_checksum, shard_name
from fulcrum.datasets.index.shards import ImageBlock, image_block, shard_arrays
from fulcrum.datasets.index.statistics import gather_statistics
from fulcrum.datasets.index.units import UnitBlock, gather_unit_statistics, unit_arrays, unit_block
from fulcrum.domain.errors import CorruptIndex, InvalidSettings

Array = NDArray[Any]

BUILDING_FILE: Final = "building.json"


class LatentIndexWriter:
    """Feeds an index with batches of consecutive images; `finish` makes it readable.

    Images of shards that exist already are skipped, so a build that was killed is continued by starting it
    again; `todo` says what is worth computing. Several writers may fill different shards of one folder.
    Memory: one shard. `keep` are the images whose activations are wanted first (None: in order), cut to the
    layout's budget. `shard_keys` name what determines each shard (None: the index and the place in it): with the
    keys of `IndexKey.shard_keys`, equal images give equal files in whatever data set they stand.
    """

    def __init__(
        self,
        folder: str | Path,
        key: IndexKey,
        layout: IndexLayout,
        *,
        keep: Sequence[int] | Array | None = None,
        shard_keys: Sequence[str] | None = None,
    ) -> None:
        """Raises InvalidSettings when the folder holds an index of something else."""
        assert shard_keys is None or len(shard_keys) == layout.n_shards
        self._shard_keys = shard_keys
        self.folder, self.key, self.layout = Path(folder), key, layout
        wanted = np.arange(layout.n_images) if keep is None else np.asarray(keep, dtype=np.int64)
        self._kept = np.sort(wanted[: layout.n_kept])
        self._claim()
        self._done = {s for s in range(layout.n_shards) if self._is_finished(s)}
        self._shard: int | None = None
        self._blocks: list[ImageBlock | UnitBlock] = []
        self._embeddings: list[Array] = []
        self._activations: list[Array] = []
        self._n_collected = 0

    def todo(self) -> list[range]:
        """Image numbers still to be added, one range for each missing shard."""
        return [self.layout.shard_range(s) for s in range(self.layout.n_shards) if s not in self._done]

    def keeps(self, numbers: Sequence[int] | Array) -> NDArray[np.bool_]:
        """Which of these images' activations are kept: only their rows belong into `add`."""
        return np.isin(np.asarray(numbers, dtype=np.int64), self._kept)

    def add(
        self,
        numbers: Sequence[int] | Array,
        offsets: Array,
        latents: Array,
        values: Array,
        embeddings: Array | None = None,
        activations: Array | None = None,
    ) -> None:
        """Consecutive images: CSR over (images x tokens), embeddings (n, d_embed), kept activations.

        Within a shard images come in order and from its start; shards in any order. Raises InvalidSettings,
        LatentOutOfRange, ComputationFailed (non-finite values).
        """
        numbers = np.asarray(numbers, dtype=np.int64)
        offsets = np.asarray(offsets, dtype=np.int64)
        self._check_numbers(numbers)
        if self.layout.dense:
            raise InvalidSettings("this is an index of units: add their values, not latents that fire")
        if offsets.size != numbers.size * self.layout.n_tokens + 1:
            raise InvalidSettings(
                f"{numbers.size} images of {self.layout.n_tokens} tokens need "
                f"{numbers.size * self.layout.n_tokens + 1} offsets, got {offsets.size}"
            )

        def block(start: int, end: int) -> ImageBlock:
            first, last = offsets[start * self.layout.n_tokens], offsets[end * self.layout.n_tokens]
            part = offsets[start * self.layout.n_tokens : end * self.layout.n_tokens + 1] - first
            return image_block(part, latents[first:last], values[first:last], self.layout)

        self._add(numbers, embeddings, activations, block)

    def add_units(
        self,
        numbers: Sequence[int] | Array,
        values: Array,
        embeddings: Array | None = None,
        activations: Array | None = None,
    ) -> None:
        """As `add`, for a dense index: what every unit says at every token, (n, n_tokens, d_sae)."""
        numbers = np.asarray(numbers, dtype=np.int64)
        self._check_numbers(numbers)
        wanted = (numbers.size, self.layout.n_tokens, self.layout.d_sae)
        if not self.layout.dense or np.shape(values) != wanted:
            raise InvalidSettings(
                f"values of units must be {wanted}, of a dense index; got {np.shape(values)}"
            )
        self._add(
            numbers, embeddings, activations, lambda start, end: unit_block(values[start:end], self.layout)
        )

    def _add(
        self,
        numbers: Array,
        embeddings: Array | None,
        activations: Array | None,
        block: Callable[[int, int], ImageBlock | UnitBlock],
    ) -> None:
        self._check_beside(numbers, embeddings, activations)
        kept_before = np.concatenate([[0], np.cumsum(self.keeps(numbers))])
        start = 0
        while start < numbers.size:
            shard = int(numbers[start]) // self.layout.images_per_shard
            end = int(np.searchsorted(numbers, self.layout.shard_range(shard).stop))
            if shard not in self._done:
                self._collect(shard, int(numbers[start]))
                self._blocks.append(block(start, end))
                if embeddings is not None:
                    self._embeddings.append(np.array(embeddings[start:end], dtype=np.float32))
                if activations is not None:
                    rows = activations[kept_before[start] : kept_before[end]]
                    self._activations.append(np.array(rows, dtype=self.layout.activation_dtype))
                self._n_collected += end - start
                if self._n_collected == len(self.layout.shard_range(shard)):
                    self._write_shard(shard)
            start = end

    def finish(self) -> LatentIndex:
        """Statistics and `index.json`, written last. Raises CorruptIndex while images are missing."""
        if (self.folder / INDEX_FILE).exists():
            return LatentIndex.open(self.folder, self.key)
        self._done |= {s for s in range(self.layout.n_shards) if s not in self._done and self._is_finished(s)}
        missing = self.todo()
        if missing:
            raise CorruptIndex(
                f"the index is incomplete: {len(missing)} of {self.layout.n_shards} shards are missing, "
                f"first: images {missing[0].start} .. {missing[0].stop - 1}"
            )
        names = [shard_name(s) for s in range(self.layout.n_shards)]
        gather = gather_unit_statistics if self.layout.dense else gather_statistics
        statistics = gather(
            (open_array_file(self.folder / n, "shard").arrays for n in names),
            self.layout.n_images,
            self.layout.n_tokens,
            self.layout.d_sae,
        )
        sizes = {"n_images": statistics.n_images, "n_tokens": statistics.n_tokens}
        write_array_file(self.folder / "statistics.arrays", "statistics", statistics.arrays(), sizes)
        files = []
        for name in [*names, "statistics.arrays"]:
            file = open_array_file(self.folder / name, "statistics" if name not in names else "shard")
            files.append({"name": name, "size_bytes": file.size_bytes, "header_sha256": file.header_sha256})
        manifest: dict[str, Any] = {
            "version": VERSION,
            "key": dataclasses.asdict(self.key),
            "layout": self.layout.as_dict(),
            "files": files,
        }
        write_json(self.folder / INDEX_FILE, {**manifest, "checksum": manifest_checksum(manifest)})
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        (self.folder / BUILDING_FILE).unlink(missing_ok=True)
        return LatentIndex.open(self.folder, self.key)

    def _claim(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = hashlib.sha256(self._kept.tobytes()).hexdigest()
        identity = {
            "version": VERSION,
            "key": dataclasses.asdict(self.key),
            "layout": self.layout.as_dict(),
        }
        for name in (INDEX_FILE, BUILDING_FILE):
            path = self.folder / name
            if not path.exists():
                continue
            try:
                there = json.loads(path.read_text(encoding="utf-8"))
                same = all(there[k] == v for k, v in identity.items()) and there.get("kept", kept) == kept
            except (ValueError, KeyError, TypeError) as error:
                raise CorruptIndex(f"{name} of the index is malformed: {error}") from error
            if not same:
                raise InvalidSettings(
                    f"{self.folder.name!r} holds an index of another model, SAE, data set or layout"
                )
            return
        write_json(self.folder / BUILDING_FILE, {**identity, "kept": kept})

    def _is_finished(self, shard: int) -> bool:
        path = self.folder / shard_name(shard)
        if not path.exists():
            return False
        try:
            file = open_array_file(path, "shard")
            file.verify()
        except CorruptIndex:
            # Damaged since it was written; building it again is cheaper than not noticing.
            return False
        return file.meta == self._shard_meta(shard)

    def _shard_meta(self, shard: int) -> dict[str, Any]:
        images = self.layout.shard_range(shard)
        place = f"{self.key.sha256}:{images.start}" if self._shard_keys is None else self._shard_keys[shard]
        return {"shard_key": place, "n_images": len(images)}

    def _collect(self, shard: int, number: int) -> None:
        if self._shard != shard:
            # What was collected of an abandoned shard is dropped: it must be added again from its start.
            self._shard, self._n_collected = shard, 0
            self._blocks, self._embeddings, self._activations = [], [], []
        expected = self.layout.shard_range(shard).start + self._n_collected
        if number != expected:
            raise InvalidSettings(
                f"a shard is added in order and from its start: expected image {expected}, got {number}"
            )

    def _write_shard(self, shard: int) -> None:
        arrays = (
            unit_arrays([b for b in self._blocks if isinstance(b, UnitBlock)])
            if self.layout.dense
            else shard_arrays([b for b in self._blocks if isinstance(b, ImageBlock)], self.layout)
        )
        if self.layout.d_embed:
            arrays["embeddings"] = np.concatenate(self._embeddings)
        if self._activations:
            images = np.asarray(self.layout.shard_range(shard))
            arrays["activation_images"] = np.flatnonzero(self.keeps(images)).astype(np.int64)
            arrays["activations"] = np.concatenate(self._activations)
        write_array_file(self.folder / shard_name(shard), "shard", arrays, self._shard_meta(shard))
        self._done.add(shard)
        self._shard = None

    def _check_numbers(self, numbers: Array) -> None:
        if numbers.ndim != 1 or np.any(np.diff(numbers) != 1):
            raise InvalidSettings("a batch must hold consecutive images in ascending order")
        if numbers.size and (numbers[0] < 0 or numbers[-1] >= self.layout.n_images):
            raise InvalidSettings(f"image numbers must be 0 .. {self.layout.n_images - 1}, got {numbers[-1]}")

    def _check_beside(self, numbers: Array, embeddings: Array | None, activations: Array | None) -> None:
        layout = self.layout
        given = None if embeddings is None else np.shape(embeddings)
        if given != ((numbers.size, layout.d_embed) if layout.d_embed else None):
            raise InvalidSettings(f"embeddings must be ({numbers.size}, {layout.d_embed}), got {given}")
        n_kept = int(self.keeps(numbers).sum()) if layout.d_in else 0
        given = None if activations is None else np.shape(activations)
        if (n_kept or given is not None) and given != (n_kept, layout.n_tokens, layout.d_in):
            raise InvalidSettings(
                f"activations must be ({n_kept}, {layout.n_tokens}, {layout.d_in}) for the images that "
                f"`keeps` names, got {given}"
            )
