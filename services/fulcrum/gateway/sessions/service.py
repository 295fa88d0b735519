"""What happens to sessions and the lines in them."""

from typing import Any

from fulcrum.domain.errors import Forbidden, UnknownImage, UnknownResult, UnknownSession
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import Page, Role, SessionEntry, SessionRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import PageParams
from fulcrum.gateway.reach import reach, together
from fulcrum.gateway.schemas import changes
from fulcrum.gateway.sessions.schemas import NewEntry, NewSession, SessionChange
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction


def find(asker: Asker, tx: Transaction, session_id: str, role: Role) -> SessionRecord:
    """Raises UnknownSession, Forbidden."""
    return reach(asker, tx, tx.sessions, session_id, role, UnknownSession, "session")


def find_own(asker: Asker, tx: Transaction, session_id: str) -> SessionRecord:
    """A session that the asker may write into. Raises UnknownSession, and Forbidden for another person's."""
    record = find(asker, tx, session_id, "analyst")
    # A log is evidence of what one person expected before they saw the answer.
    if record.created_by != asker.user.id:
        raise Forbidden(f"session {record.title!r} is another person's log: begin your own")
    return record


def begin(store: Store, asker: Asker, body: NewSession) -> SessionRecord:
    """Raises UnknownProject, Forbidden."""
    with store.write() as tx:
        return tx.sessions.add(
            SessionRecord(
                id=new_id("ses"),
                project_id=asker.project(tx, body.project_id, "analyst"),
                title=body.title,
                created_by=asker.user.id,
                created_at=now(),
            )
        )


def page(
    store: Store, asker: Asker, project_id: str | None, created_by: str | None, params: PageParams
) -> Page[SessionRecord]:
    """Raises UnknownProject."""
    with store.read() as tx:
        project = asker.project(tx, project_id, "viewer")
        return tx.sessions.list(
            project_id=project, limit=params.limit, cursor=params.cursor, created_by=created_by
        )


def get(store: Store, asker: Asker, session_id: str) -> SessionRecord:
    """Raises UnknownSession."""
    with store.read() as tx:
        return find(asker, tx, session_id, "viewer")


def change(
    store: Store, asker: Asker, session_id: str, body: SessionChange, expected: int | None
) -> SessionRecord:
    """Raises UnknownSession, Forbidden, StaleVersion."""
    with store.write() as tx:
        find_own(asker, tx, session_id)
        return tx.sessions.update(session_id, expected, **changes(body))


def remove(store: Store, asker: Asker, session_id: str, expected: int | None) -> None:
    """Raises UnknownSession, Forbidden, StaleVersion."""
    with store.write() as tx:
        record = find_own(asker, tx, session_id)
        tx.sessions.delete(session_id, expected)
        tx.audit.append(asker.user.id, "session.delete", session_id, {"title": record.title})


def write(store: Store, asker: Asker, session_id: str, body: NewEntry) -> SessionEntry:
    """Raises UnknownSession, UnknownImage, UnknownResult, Forbidden."""
    with store.write() as tx:
        session = find_own(asker, tx, session_id)
        if body.image_id is not None:
            together(session, reach(asker, tx, tx.images, body.image_id, "viewer", UnknownImage, "image"))
        if body.result_id is not None:
            together(session, reach(asker, tx, tx.results, body.result_id, "viewer", UnknownResult, "result"))
        return tx.sessions.add_entry(
            entry(asker, session_id, body.kind, {"text": body.text}, body.result_id, body.image_id)
        )


def entry(
    asker: Asker,
    session_id: str,
    kind: Any,
    content: dict[str, Any],
    result_id: str | None,
    image_id: str | None,
) -> SessionEntry:
    """A line of the asker, now."""
    return SessionEntry(
        id=new_id("ent"),
        session_id=session_id,
        kind=kind,
        content=content,
        created_by=asker.user.id,
        created_at=now(),
        result_id=result_id,
        image_id=image_id,
    )


def entries(store: Store, asker: Asker, session_id: str, params: PageParams) -> Page[SessionEntry]:
    """Raises UnknownSession."""
    with store.read() as tx:
        find(asker, tx, session_id, "viewer")
        return tx.sessions.entries(session_id, limit=params.limit, cursor=params.cursor)
