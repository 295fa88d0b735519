"""References to language models, and which of their layers are meant: words that a caller may send.

A model is `hf-hub:owner/name` (it has to be on the worker's machine: nothing is fetched) or `folder:NAME/sub` below a
folder that the administrator named. Layers are those of the MLPs (`mlp`), of attention (`attention`), or by name with
`*` for anything: `encoder.layer.3.*`.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from fulcrum.domain.errors import InvalidInput, UnknownModel

HF_HUB: Final = "hf-hub:"
FOLDER: Final = "folder:"
MAX_LAYERS: Final = 64  # patterns in one question

_PART = r"[0-9A-Za-z][0-9A-Za-z._-]{0,95}"
_HUB_NAME = re.compile(rf"{_PART}/{_PART}")
_ATTENTION = ("attention", "attn")


def check_language_model(reference: str) -> None:
    """Raises UnknownModel for what cannot name one: a path, above all."""
    if reference.startswith(FOLDER) and len(reference) > len(FOLDER):
        return
    name = reference.removeprefix(HF_HUB)
    if name == reference or not _HUB_NAME.fullmatch(name) or ".." in name:
        raise UnknownModel(
            f"{reference[:200]!r} is not a language model that can be asked for: allowed are '{HF_HUB}<owner>/<name>', "
            f"which has to be on the worker's machine, and '{FOLDER}<name>/<sub>' below a folder that the "
            "administrator named"
        )


def chosen_layers(names: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """Those of `names` that any of `wanted` means, in their order; all for none.

    Raises InvalidInput for a wish that no layer fulfils.
    """
    chosen: set[str] = set()
    for wish in wanted:
        found = {name for name in names if _means(wish, name)}
        if not found:
            raise InvalidInput(
                f"no linear layer of this model is {wish[:80]!r}: expected mlp, attention or a name such as "
                f"{', '.join(names[:3])}, with * for anything"
            )
        chosen |= found
    return tuple(name for name in names if name in chosen) if wanted else tuple(names)


def _means(wish: str, name: str) -> bool:
    of_attention = any(part in name.lower() for part in _ATTENTION)
    match wish:
        case "attention":
            return of_attention
        case "mlp":
            return not of_attention
        case _:
            return fnmatchcase(name, wish)
