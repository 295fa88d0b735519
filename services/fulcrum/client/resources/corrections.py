"""Corrections: saved interventions in immutable versions."""

from pathlib import Path

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, Versioned, given, id_of, precondition
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.codec import to_json
from fulcrum.domain.corrections import Correction
from fulcrum.domain.records import CorrectionRecord, CorrectionVersion


class Corrections(Bound[Side]):
    """`client.corrections`: saved interventions in immutable versions."""

    @operation
    def create(
        self,
        name: str,
        correction: Correction,
        *,
        description: str = "",
        note: str = "",
        model: Identified | str | None = None,
        sae: Identified | str | None = None,
    ) -> Flow[CorrectionRecord]:
        """Saves version 1. Raises AlreadyExists for a taken name."""
        body = given(
            name=name,
            correction=to_json(correction),
            description=description,
            note=note,
            model_id=None if model is None else id_of(model),
            sae_id=None if sae is None else id_of(sae),
            project_id=self._wire.project_id,
        )
        return (yield from self._wire.ask(CorrectionRecord, "POST", path("corrections"), json=body))

    @operation
    def suggested(self, job: Identified | str) -> Flow[Correction]:
        """What a finished job of `client.evaluations.suggest` found; saved nowhere yet. Raises JobUnfinished."""
        return (yield from self._wire.ask(Correction, "GET", path("jobs", id_of(job), "correction")))

    @operation
    def save_suggested(
        self,
        job: Identified | str,
        name: str | None = None,
        *,
        correction: Identified | str | None = None,
        description: str = "",
        note: str = "",
    ) -> Flow[CorrectionRecord]:
        """Saves what such a job found: under a new name, or as the next version of `correction`.

        Raises AlreadyExists for a taken name, or when nothing differs from the newest version; JobUnfinished.
        """
        body = given(
            name=name,
            correction_id=None if correction is None else id_of(correction),
            description=description,
            note=note,
        )
        where = path("jobs", f"{id_of(job)}:save")
        return (yield from self._wire.ask(CorrectionRecord, "POST", where, json=body))

    @operation
    def get(self, correction: Identified | str) -> Flow[CorrectionRecord]:
        """One correction's record. Raises UnknownCorrection."""
        return (yield from self._wire.ask(CorrectionRecord, "GET", path("corrections", id_of(correction))))

    @listing(CorrectionRecord)
    def list(self, *, sae: Identified | str | None = None) -> Flow[None]:
        """All corrections of the project (made for one SAE), newest first."""
        filters = given(project_id=self._wire.project_id, sae_id=None if sae is None else id_of(sae))
        yield from self._wire.pages(CorrectionRecord, path("corrections"), filters)

    @operation
    def update(
        self, correction: Versioned | str, *, name: str | None = None, description: str | None = None
    ) -> Flow[CorrectionRecord]:
        """The correction with other words; its content changes by a new version only. Raises StaleVersion."""
        where, body = path("corrections", id_of(correction)), given(name=name, description=description)
        return (
            yield from self._wire.ask(
                CorrectionRecord, "PATCH", where, json=body, if_match=precondition(correction)
            )
        )

    @listing(CorrectionVersion)
    def versions(self, correction: Identified | str) -> Flow[None]:
        """Its versions, newest first."""
        yield from self._wire.pages(CorrectionVersion, path("corrections", id_of(correction), "versions"))

    @operation
    def version(
        self, correction: CorrectionRecord | str, number: int | None = None
    ) -> Flow[CorrectionVersion]:
        """One version with its content, None the newest. Raises UnknownCorrection."""
        if number is None:
            number = (yield from Corrections.get.flow(self, correction)).latest
        where = path("corrections", id_of(correction), "versions", number)
        return (yield from self._wire.ask(CorrectionVersion, "GET", where))

    @operation
    def add_version(
        self, correction: Versioned | str, content: Correction, *, note: str = ""
    ) -> Flow[CorrectionVersion]:
        """Saves another version. Raises AlreadyExists when nothing differs from the newest one, StaleVersion."""
        where = path("corrections", id_of(correction), "versions")
        body = {"correction": to_json(content), "note": note}
        return (
            yield from self._wire.ask(
                CorrectionVersion, "POST", where, json=body, if_match=precondition(correction)
            )
        )

    @operation
    def export(
        self, correction: Identified | str, to: str | Path | None = None, *, number: int | None = None
    ) -> Flow[bytes]:
        """A version (the newest) as a file to take home, for `fulcrum steer --correction`; also written to `to`."""
        where = path("corrections", f"{id_of(correction)}:export")
        content = yield from self._wire.fetch(where, {"number": number})
        if to is not None:
            Path(to).write_bytes(content)
        return content

    @operation
    def delete(self, correction: Versioned | str) -> Flow[None]:
        """Takes the correction out of the project."""
        yield from self._wire.do(
            "DELETE", path("corrections", id_of(correction)), if_match=precondition(correction)
        )
