"""Looks at a data set's splits, one JSON line each, beside its index: appended to, never rewritten."""

import json
from pathlib import Path

from fulcrum.domain.errors import CorruptFile
from fulcrum.science.validation.looks import Look, Looks


def read_looks(path: Path) -> Looks:
    """All looks so far; none where there is no file. Raises CorruptFile."""
    looks = Looks()
    if not path.exists():
        return looks
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            looks = looks.record(Look(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise CorruptFile(f"line {number} of {path.name} is not a look: {error}") from error
    return looks


def append_look(path: Path, look: Look) -> None:
    """One more line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(vars(look), sort_keys=True) + "\n")
