"""Names from outside to what the engine loads: never a path of the caller's choosing.

A model is an OpenCLIP name with a tag, `hf-hub:owner/name`, or `folder:NAME/sub` with NAME among the folders that the
administrator named; a language model is one of the last two; an SAE is `folder:NAME/sub`,
`artifact:<sha256>:<sha256>`, `untrained:...`, or `units:<hook point>`.
"""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

from fulcrum.domain.errors import InvalidSettings, NotFound, UnknownModel, UnknownSae
from fulcrum.domain.language_models import check_language_model
from fulcrum.domain.models import UNITS, ModelRef
from fulcrum.engine.language_models import LanguageSource
from fulcrum.engine.sae_artifacts import ARTIFACT, SaeArtifacts
from fulcrum.engine.untrained import UNTRAINED
from fulcrum.science.vision.backend import open_clip
from fulcrum.science.vision.sources import HF_HUB, LOCAL_DIR

FOLDER = "folder:"

# An untrained SAE costs its asker a line of text and the service d_sae rows of memory.
_MAX_UNTRAINED = 1 << 17
_KEPT = 256


class References:
    """Resolves names under the named folders; thread-safe."""

    def __init__(self, folders: Mapping[str, Path], artifacts: SaeArtifacts | None = None) -> None:
        """Raises InvalidSettings for a folder that does not exist or a name that cannot be written in a reference."""
        self._roots: dict[str, Path] = {}
        for name, path in folders.items():
            if not name or not all(c.isalnum() or c in "-_." for c in name):
                raise InvalidSettings(f"folder name {name!r}: letters, digits, '-', '_' and '.' are allowed")
            if not path.is_dir():
                raise InvalidSettings(f"folder {name!r} is {str(path)!r}, which is no folder")
            self._roots[name] = path.resolve()
        self._artifacts = artifacts
        # A slider asks for the same names many times a second; looking at a folder costs more than the answer.
        self._model = lru_cache(maxsize=_KEPT)(self._find_model)
        self._sae = lru_cache(maxsize=_KEPT)(self._find_sae)

    def model(self, ref: ModelRef) -> ModelRef:
        """The reference that the engine loads. Raises UnknownModel for what a caller may not or cannot name."""
        return self._model(ref)

    def language_model(self, reference: str) -> LanguageSource:
        """Where it lies on this machine: nothing is fetched. Raises UnknownModel, MissingDependency."""
        check_language_model(reference)
        if reference.startswith(FOLDER):
            folder = self._inside(reference, UnknownModel)
            if not folder.is_dir():
                raise UnknownModel(
                    f"{reference[:200]!r} is a file: name the folder with the model's config.json"
                )
        else:
            folder = _hub_folder(reference.removeprefix(HF_HUB), reference)
        return LanguageSource(str(folder), reference)

    def sae(self, source: str) -> str:
        """What the engine's `load_sae` takes. Raises UnknownSae; fetches an uploaded SAE at its first use."""
        return self._sae(source)

    def _find_model(self, ref: ModelRef) -> ModelRef:
        name, pretrained = ref.model_name, ref.pretrained
        if name.startswith(FOLDER):
            name = f"{LOCAL_DIR}{self._inside(name, UnknownModel)}"
        elif not name.startswith(HF_HUB) and name.replace("/", "-") not in open_clip.list_models():
            raise UnknownModel(
                f"{name[:200]!r} is not a model that can be asked for here: allowed are OpenCLIP's names, "
                f"'{HF_HUB}<owner>/<name>' and '{FOLDER}<name>/<sub>' with a folder of {self._names()}"
            )
        if pretrained is not None:
            if pretrained.startswith(FOLDER):
                pretrained = str(self._inside(pretrained, UnknownModel))
            elif not open_clip.get_pretrained_cfg(name.replace("/", "-"), pretrained):
                tags = open_clip.list_pretrained_tags_by_model(name.replace("/", "-"))
                raise UnknownModel(
                    f"pretrained={pretrained[:200]!r} is not a tag of {name[:200]!r} "
                    f"({', '.join(tags) or 'it has none'}) and not '{FOLDER}<name>/<file>'"
                )
        return dataclasses.replace(ref, model_name=name, pretrained=pretrained)

    def _find_sae(self, source: str) -> str:
        if source.startswith(FOLDER):
            return str(self._inside(source, UnknownSae))
        if source.startswith(ARTIFACT):
            if self._artifacts is None:
                raise UnknownSae(f"{source!r}: this service knows no artifact store")
            return str(self._artifacts.folder_of(source))
        if source.startswith(UNTRAINED):
            size = source.removeprefix(UNTRAINED).partition("@")[0].split(":")[1:2]
            # Not isdigit, which takes the likes of a superscript two for digits.
            if size and size[0].isdecimal() and (len(size[0]) > 9 or int(size[0]) > _MAX_UNTRAINED):
                raise UnknownSae(f"{source[:80]!r}: an untrained SAE has at most {_MAX_UNTRAINED} latents")
            return source
        if source.startswith(UNITS):
            return source
        raise UnknownSae(
            f"{source[:200]!r} is not an SAE that can be asked for here: allowed are '{FOLDER}<name>/<sub>' with a "
            f"folder of {self._names()}, '{ARTIFACT}<sha256 of cfg.json>:<sha256 of the weights>', '{UNTRAINED}...' "
            f"and '{UNITS}<hook point>'"
        )

    def place(self, reference: str, error: type[NotFound]) -> Path:
        """The folder or file of `folder:NAME/sub`. Raises `error` for what a caller may not or cannot name."""
        if not reference.startswith(FOLDER):
            raise error(
                f"{reference[:200]!r} cannot be named here: expected '{FOLDER}<name>/<sub>' with a folder of "
                f"{self._names()}"
            )
        return self._inside(reference, error)

    def public(self, text: str) -> str:
        """`text` with our folders under the names by which callers know them."""
        for name, root in self._roots.items():
            for path in (f"{LOCAL_DIR}{root}", str(root)):
                text = text.replace(path, f"{FOLDER}{name}")
        return text if self._artifacts is None else self._artifacts.public(text)

    def _names(self) -> str:
        return ", ".join(sorted(self._roots)) or "none"

    def _inside(self, reference: str, error: type[NotFound]) -> Path:
        name, _, sub = reference.removeprefix(FOLDER).partition("/")
        if name not in self._roots:
            raise error(
                f"{reference[:200]!r}: there is no folder {name[:80]!r}, the folders are {self._names()}"
            )
        root = self._roots[name]
        parts = PurePosixPath(sub)
        if parts.is_absolute() or ".." in parts.parts or "\\" in sub or not sub.isprintable():
            raise error(f"{reference[:200]!r}: below the folder only plain names are allowed, no '..'")
        try:
            path = (root / parts).resolve(strict=True)
            found = [path, *(entry.resolve() for entry in path.iterdir())] if path.is_dir() else [path]
        except (OSError, RuntimeError):  # not there, not readable, too long, or links in a circle
            raise error(f"{reference[:200]!r} does not exist") from None
        if not all(place.is_relative_to(root) for place in found):
            raise error(f"{reference[:200]!r} leaves its folder through a link")
        return path


def _hub_folder(name: str, reference: str) -> Path:
    """What was fetched of it before. Looked up, never handed on by its name, which could also be that of a folder."""
    from huggingface_hub import snapshot_download  # comes with OpenCLIP; slow to import, so only here

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception as error:  # the client raises whatever it likes for what is not there
        raise UnknownModel(
            f"{reference!r} is not on this machine, and nothing is fetched for a language model: an administrator can "
            f"fetch it, or put it below a folder"
        ) from error
