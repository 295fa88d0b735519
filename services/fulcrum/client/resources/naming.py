"""Things named by their record or by their id, and the precondition that comes with a record."""

import re
from typing import Protocol

from fulcrum.domain.errors import InvalidRequest

_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Identified(Protocol):
    """A record."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


class Versioned(Identified, Protocol):
    """A record that can change."""

    @property
    def version(self) -> int:
        """Changes so far."""
        ...


def id_of(thing: Identified | str) -> str:
    """The id of a record, or the id itself. Raises InvalidRequest for what could lead to another resource."""
    found = thing if isinstance(thing, str) else thing.id
    if not _ID.fullmatch(found):
        raise InvalidRequest(f"{found[:80]!r} is no id: expected one such as 'img_01...'")
    return found


def precondition(thing: Versioned | str) -> str:
    """`If-Match`: a record must be as it was read; an id alone takes what is there."""
    return "*" if isinstance(thing, str) else f'"{thing.version}"'


def given(**values: object) -> dict[str, object]:
    """The values that are not None: a field left out keeps the service's default."""
    return {name: value for name, value in values.items() if value is not None}
