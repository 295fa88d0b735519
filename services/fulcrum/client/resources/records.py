"""Data sets, sessions, corrections, concepts and results."""

from pathlib import Path
from typing import Any, Literal

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, Versioned, given, id_of, precondition
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.codec import to_json
from fulcrum.domain.corrections import Correction
from fulcrum.domain.records import (
    ConceptRecord,
    CorrectionRecord,
    CorrectionVersion,
    DatasetRecord,
    ResultRecord,
    SessionEntry,
    SessionRecord,
)


class Datasets(Bound[Side]):
    """`client.datasets`: the records; images are imported by a job."""

    @operation
    def create(
        self, name: str, *, description: str = "", class_names: tuple[str, ...] = ()
    ) -> Flow[DatasetRecord]:
        """An empty data set. Raises AlreadyExists."""
        body = given(
            name=name,
            description=description,
            class_names=list(class_names),
            project_id=self._wire.project_id,
        )
        return (yield from self._wire.ask(DatasetRecord, "POST", path("datasets"), json=body))

    @operation
    def get(self, dataset: Identified | str) -> Flow[DatasetRecord]:
        """One data set. Raises UnknownDataset."""
        return (yield from self._wire.ask(DatasetRecord, "GET", path("datasets", id_of(dataset))))

    @listing(DatasetRecord)
    def list(self) -> Flow[None]:
        """All data sets of the project, newest first."""
        yield from self._wire.pages(DatasetRecord, path("datasets"), given(project_id=self._wire.project_id))

    @operation
    def update(
        self, dataset: Versioned | str, *, name: str | None = None, description: str | None = None
    ) -> Flow[DatasetRecord]:
        """The data set with other words. Raises StaleVersion."""
        where, body = path("datasets", id_of(dataset)), given(name=name, description=description)
        return (
            yield from self._wire.ask(
                DatasetRecord, "PATCH", where, json=body, if_match=precondition(dataset)
            )
        )

    @operation
    def delete(self, dataset: Versioned | str) -> Flow[None]:
        """Takes the data set out of the project."""
        yield from self._wire.do("DELETE", path("datasets", id_of(dataset)), if_match=precondition(dataset))


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


class Concepts(Bound[Side]):
    """`client.concepts`: what latents stand for."""

    @listing(ConceptRecord)
    def list(self, sae: Identified | str, *, words: str | None = None) -> Flow[None]:
        """Described latents of an SAE, newest label first; `words`: those with all of it in label or note."""
        yield from self._wire.pages(ConceptRecord, path("saes", id_of(sae), "concepts"), given(q=words))

    @operation
    def labels(self, sae: Identified | str) -> Flow[dict[int, str]]:
        """The label of each labelled latent, for `Explanation.with_labels`."""
        found = yield from self._wire.everything(ConceptRecord, path("saes", id_of(sae), "concepts"))
        return {c.latent: c.label for c in found if c.label}

    @operation
    def get(self, sae: Identified | str, latent: int) -> Flow[ConceptRecord]:
        """What is recorded about a latent. Raises UnknownConcept."""
        return (yield from self._wire.ask(ConceptRecord, "GET", path("saes", id_of(sae), "concepts", latent)))

    @operation
    def put(
        self,
        sae: Identified | str,
        latent: int,
        label: str,
        *,
        note: str = "",
        expected: ConceptRecord | None = None,
    ) -> Flow[ConceptRecord]:
        """Names a latent. With `expected`, only if nobody changed it since: StaleVersion otherwise."""
        return (
            yield from self._wire.ask(
                ConceptRecord,
                "PUT",
                path("saes", id_of(sae), "concepts", latent),
                json={"label": label, "note": note},
                if_match="*" if expected is None else precondition(expected),
            )
        )


class Results(Bound[Side]):
    """`client.results`: every answer as it was given."""

    @operation
    def get(self, result_id: str) -> Flow[ResultRecord]:
        """One result with its question and provenance. Raises UnknownResult."""
        return (yield from self._wire.ask(ResultRecord, "GET", path("results", id_of(result_id))))

    @listing(ResultRecord)
    def list(self, *, kind: str | None = None, image: Identified | str | None = None) -> Flow[None]:
        """All results of the project, newest first."""
        filters: dict[str, Any] = given(
            project_id=self._wire.project_id, kind=kind, image_id=None if image is None else id_of(image)
        )
        yield from self._wire.pages(ResultRecord, path("results"), filters)
