"""Things named by their record or by their id, and the precondition that comes with a record."""

from typing import Protocol


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
    """The id of a record, or the id itself."""
    return thing if isinstance(thing, str) else thing.id


def precondition(thing: Versioned | str) -> str:
    """`If-Match`: a record must be as it was read; an id alone takes what is there."""
    return "*" if isinstance(thing, str) else f'"{thing.version}"'


def given(**values: object) -> dict[str, object]:
    """The values that are not None: a field left out keeps the service's default."""
    return {name: value for name, value in values.items() if value is not None}
