"""Sessions: logs of what somebody asked and expected."""

from typing import Literal

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, Versioned, given, id_of, precondition
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.records import SessionEntry, SessionRecord


class Sessions(Bound[Side]):
    """`client.sessions`: logs of what somebody asked and expected."""

    @operation
    def create(self, title: str) -> Flow[SessionRecord]:
        """A new log; pass it as `session=` to questions and their answers are written into it."""
        body = given(title=title, project_id=self._wire.project_id)
        return (yield from self._wire.ask(SessionRecord, "POST", path("sessions"), json=body))

    @operation
    def get(self, session: Identified | str) -> Flow[SessionRecord]:
        """One session. Raises UnknownSession."""
        return (yield from self._wire.ask(SessionRecord, "GET", path("sessions", id_of(session))))

    @listing(SessionRecord)
    def list(self) -> Flow[None]:
        """All sessions of the project, newest first."""
        yield from self._wire.pages(SessionRecord, path("sessions"), given(project_id=self._wire.project_id))

    @operation
    def rename(self, session: Versioned | str, title: str) -> Flow[SessionRecord]:
        """The session under another title. Raises StaleVersion."""
        where = path("sessions", id_of(session))
        return (
            yield from self._wire.ask(
                SessionRecord, "PATCH", where, json={"title": title}, if_match=precondition(session)
            )
        )

    @operation
    def delete(self, session: Versioned | str) -> Flow[None]:
        """Takes the session out of the project."""
        yield from self._wire.do("DELETE", path("sessions", id_of(session)), if_match=precondition(session))

    @operation
    def note(
        self,
        session: Identified | str,
        text: str,
        *,
        kind: Literal["hypothesis", "note"] = "note",
        image: Identified | str | None = None,
        result_id: str | None = None,
    ) -> Flow[SessionEntry]:
        """Writes a line, which nobody can change afterwards."""
        body = given(
            kind=kind, text=text, image_id=None if image is None else id_of(image), result_id=result_id
        )
        where = path("sessions", id_of(session), "entries")
        return (yield from self._wire.ask(SessionEntry, "POST", where, json=body))

    @listing(SessionEntry)
    def entries(self, session: Identified | str) -> Flow[None]:
        """The lines of a session."""
        yield from self._wire.pages(SessionEntry, path("sessions", id_of(session), "entries"))
