"""Uploaded SAEs: fetched from the artifact store into folders that the engine can load."""

import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Protocol

from fulcrum.domain.errors import UnknownSae
from fulcrum.science.sae.storage import CONFIG_FILE, WEIGHTS_FILE

ARTIFACT = "artifact:"

_PATTERN = re.compile(r"artifact:([0-9a-f]{64}):([0-9a-f]{64})")


class ArtifactReader(Protocol):
    """The part of the artifact store that is read here."""

    def local_path(self, sha256: str) -> Path:
        """A verified copy on this machine."""
        ...

    def read_bytes(self, sha256: str, max_bytes: int) -> bytes:
        """Verified bytes."""
        ...


class SaeArtifacts:
    """`artifact:<sha256 of cfg.json>:<sha256 of sae_weights.safetensors>` to a folder with both; thread-safe."""

    def __init__(self, artifacts: ArtifactReader, cache_dir: Path | None = None) -> None:
        """Without `cache_dir` a temporary folder is used until `close`."""
        self._artifacts = artifacts
        self._temporary = cache_dir is None
        self._root = Path(tempfile.mkdtemp(prefix="fulcrum-saes-")) if cache_dir is None else cache_dir
        self._root = self._root.resolve()
        self._lock = threading.Lock()
        self._checked: set[Path] = set()

    def folder_of(self, source: str) -> Path:
        """Raises UnknownSae (malformed), UnknownArtifact, CorruptArtifact."""
        match = _PATTERN.fullmatch(source)
        if match is None:
            raise UnknownSae(
                f"{source[:200]!r}: expected '{ARTIFACT}<sha256 of {CONFIG_FILE}>:<sha256 of {WEIGHTS_FILE}>' "
                "with 64 hexadecimal digits each"
            )
        cfg, weights = match.groups()
        folder = self._root / f"{cfg}-{weights}"
        with self._lock:  # two callers of one SAE fetch it once
            if folder not in self._checked:  # what another run left there may have been altered since
                self._fetch(cfg, weights, folder)
                self._checked.add(folder)
        return folder

    def _fetch(self, cfg: str, weights: str, folder: Path) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix="partial-", dir=self._root))
        try:
            for sha256, name in ((cfg, CONFIG_FILE), (weights, WEIGHTS_FILE)):
                (partial / name).symlink_to(self._artifacts.local_path(sha256).resolve())
            if folder.exists():
                shutil.rmtree(folder)
            partial.replace(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def public(self, text: str) -> str:
        """`text` without the place of the cache."""
        return text.replace(f"{self._root}/", ARTIFACT)

    def close(self) -> None:
        """Removes the temporary folder, if it was one."""
        if self._temporary:
            shutil.rmtree(self._root, ignore_errors=True)
