"""Records as the asker may reach them: those of other projects read as if they did not exist."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from fulcrum.domain.errors import InvalidRequest, NotFound
from fulcrum.domain.records import Role
from fulcrum.gateway.asking import Asker, OfProject
from fulcrum.store.transaction import Transaction

R_co = TypeVar("R_co", bound=OfProject, covariant=True)
R = TypeVar("R", bound=OfProject)


class Readable(Protocol[R_co]):
    """A repository, as far as one record goes."""

    def get(self, id: str) -> R_co:
        """The record. Raises NotFound."""
        ...


def reach(
    asker: Asker,
    tx: Transaction,
    repository: Readable[R],
    id: str,
    role: Role,
    unknown: type[NotFound],
    word: str,
) -> R:
    """The record, for an asker with that role in its project. Raises `unknown` and Forbidden."""
    return reach_all(asker, tx, repository, [id], role, unknown, word)[0]


def reach_all(
    asker: Asker,
    tx: Transaction,
    repository: Readable[R],
    ids: Sequence[str],
    role: Role,
    unknown: type[NotFound],
    word: str,
) -> tuple[R, ...]:
    """`reach` for many ids, in their order; each record and each project is looked at once."""
    found: dict[str, R] = {}
    open_projects: set[str] = set()
    for id in dict.fromkeys(ids):
        # One message for what does not exist and what the asker may not know of, so that it tells nothing.
        missing = unknown(f"no {word} with the id {id[:80]!r}")
        try:
            record = repository.get(id)
        except NotFound:
            raise missing from None
        if record.project_id not in open_projects:
            asker.may(tx, record, role, missing)
            open_projects.add(record.project_id)
        found[id] = record
    return tuple(found[id] for id in ids)


def together(first: OfProject, *others: OfProject | None) -> None:
    """Raises InvalidRequest unless all belong to one project: an answer can be kept in one only."""
    for other in others:
        if other is not None and other.project_id != first.project_id:
            raise InvalidRequest(
                f"{getattr(other, 'id', 'one')} belongs to project {other.project_id} and "
                f"{getattr(first, 'id', 'another')} to {first.project_id}: a request stays within one project"
            )
