"""Registered models and SAEs."""

import time
from pathlib import Path
from typing import TypeVar

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, Versioned, given, id_of, precondition
from fulcrum.client.steps import FilePart, Flow, Sleep
from fulcrum.client.wire import path
from fulcrum.domain.errors import (
    DeadlineExceeded,
    InvalidRequest,
    UnknownModel,
    UnknownSae,
)
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import ModelRecord, SaeRecord

RecordT = TypeVar("RecordT", ModelRecord, SaeRecord)
_FIRST_POLL_S, _SLOWEST_POLL_S = 0.1, 2.0


class Models(Bound[Side]):
    """`client.models`."""

    @operation
    def create(self, name: str, ref: ModelRef) -> Flow[ModelRecord]:
        """Registers a model; it loads in the background, see `wait`. Raises AlreadyExists.

        `ref.model_name`: an OpenCLIP name, `hf-hub:owner/name` or `folder:NAME/sub`.
        """
        body = given(
            name=name,
            model_name=ref.model_name,
            pretrained=ref.pretrained,
            random_weights=ref.random_weights,
            seed=ref.seed,
            project_id=self._wire.project_id,
        )
        return (yield from self._wire.ask(ModelRecord, "POST", path("models"), json=body))

    @operation
    def get(self, model: Identified | str) -> Flow[ModelRecord]:
        """One model. Raises UnknownModel."""
        return (yield from self._wire.ask(ModelRecord, "GET", path("models", id_of(model))))

    @listing(ModelRecord)
    def list(self) -> Flow[None]:
        """All models of the project, newest first."""
        yield from self._wire.pages(ModelRecord, path("models"), given(project_id=self._wire.project_id))

    @operation
    def rename(self, model: Versioned | str, name: str) -> Flow[ModelRecord]:
        """The model under another name. Raises StaleVersion, AlreadyExists."""
        where = path("models", id_of(model))
        return (
            yield from self._wire.ask(
                ModelRecord, "PATCH", where, json={"name": name}, if_match=precondition(model)
            )
        )

    @operation
    def delete(self, model: Versioned | str) -> Flow[None]:
        """Takes the model out of the project."""
        yield from self._wire.do("DELETE", path("models", id_of(model)), if_match=precondition(model))

    @operation
    def warm(self, model: Identified | str) -> Flow[ModelRecord]:
        """Loads the model into memory and waits for it, so that the next question finds it there."""
        return (yield from self._wire.ask(ModelRecord, "POST", path("models", f"{id_of(model)}:warm")))

    @operation
    def wait(self, model: Identified | str, *, timeout_s: float = 600.0) -> Flow[ModelRecord]:
        """The model once it is ready. Raises UnknownModel with the cause when it cannot be loaded,
        DeadlineExceeded when it takes longer.
        """
        until, wait = time.monotonic() + timeout_s, _FIRST_POLL_S
        while True:
            record = yield from Models.get.flow(self, model)
            if _is_ready(record, until, UnknownModel):
                return record
            yield Sleep(wait)
            wait = min(1.5 * wait, _SLOWEST_POLL_S)


class Saes(Bound[Side]):
    """`client.saes`."""

    @operation
    def create(self, name: str, model: Identified | str, source: str) -> Flow[SaeRecord]:
        """Registers an SAE of a model; it loads in the background, see `wait`.

        `source`: `folder:NAME/sub`, or `untrained:...`. Files of your own: `upload`.
        """
        body = given(name=name, model_id=id_of(model), source=source, project_id=self._wire.project_id)
        return (yield from self._wire.ask(SaeRecord, "POST", path("saes"), json=body))

    @operation
    def upload(
        self,
        name: str,
        model: Identified | str,
        folder: str | Path | None = None,
        *,
        cfg: str | Path | None = None,
        weights: str | Path | None = None,
    ) -> Flow[SaeRecord]:
        """Uploads `cfg.json` and `sae_weights.safetensors` of a folder (or named one by one) and registers the SAE.

        The weights are read while they are sent, so they may be larger than the memory.
        """
        if folder is not None:
            cfg = cfg or Path(folder) / "cfg.json"
            weights = weights or Path(folder) / "sae_weights.safetensors"
        if cfg is None or weights is None:
            raise InvalidRequest("name the folder of the SAE, or both its cfg and its weights")
        files = []
        for field, file in (("cfg", Path(cfg)), ("weights", Path(weights))):
            if not file.is_file():
                raise InvalidRequest(f"{field} of the SAE: there is no file {str(file)!r}")
            files.append(FilePart(field, file.name, file))
        fields = given(name=name, model_id=id_of(model), project_id=self._wire.project_id)
        return (
            yield from self._wire.ask(
                SaeRecord,
                "POST",
                path("saes:upload"),
                fields={k: str(v) for k, v in fields.items()},
                files=tuple(files),
            )
        )

    @operation
    def get(self, sae: Identified | str) -> Flow[SaeRecord]:
        """One SAE. Raises UnknownSae."""
        return (yield from self._wire.ask(SaeRecord, "GET", path("saes", id_of(sae))))

    @listing(SaeRecord)
    def list(self, *, model: Identified | str | None = None) -> Flow[None]:
        """All SAEs of the project (of one model), newest first."""
        filters = given(project_id=self._wire.project_id, model_id=None if model is None else id_of(model))
        yield from self._wire.pages(SaeRecord, path("saes"), filters)

    @operation
    def rename(self, sae: Versioned | str, name: str) -> Flow[SaeRecord]:
        """The SAE under another name. Raises StaleVersion, AlreadyExists."""
        where = path("saes", id_of(sae))
        return (
            yield from self._wire.ask(
                SaeRecord, "PATCH", where, json={"name": name}, if_match=precondition(sae)
            )
        )

    @operation
    def delete(self, sae: Versioned | str) -> Flow[None]:
        """Takes the SAE out of the project."""
        yield from self._wire.do("DELETE", path("saes", id_of(sae)), if_match=precondition(sae))

    @operation
    def warm(self, sae: Identified | str) -> Flow[SaeRecord]:
        """Loads the SAE and its model into memory and waits for them."""
        return (yield from self._wire.ask(SaeRecord, "POST", path("saes", f"{id_of(sae)}:warm")))

    @operation
    def wait(self, sae: Identified | str, *, timeout_s: float = 600.0) -> Flow[SaeRecord]:
        """The SAE once it is ready. Raises UnknownSae with the cause when it cannot be loaded,
        DeadlineExceeded when it takes longer.
        """
        until, wait = time.monotonic() + timeout_s, _FIRST_POLL_S
        while True:
            record = yield from Saes.get.flow(self, sae)
            if _is_ready(record, until, UnknownSae):
                return record
            yield Sleep(wait)
            wait = min(1.5 * wait, _SLOWEST_POLL_S)

    @operation
    def choose(
        self, sae: Identified | str | None = None, model: Identified | str | None = None
    ) -> Flow[SaeRecord]:
        """The SAE that is meant by a record, an id or a name; None takes the newest that is ready, or else
        the newest that may become so.

        `model` (record, id or name) leaves only the SAEs of one model. Raises UnknownSae, UnknownModel.
        """
        if isinstance(sae, SaeRecord):
            return sae
        if sae is not None and not isinstance(sae, str):
            return (yield from Saes.get.flow(self, sae))
        if sae is not None and sae.startswith("sae_"):
            return (yield from Saes.get.flow(self, sae))
        filters = given(project_id=self._wire.project_id)
        if model is not None:
            filters["model_id"] = (yield from choose_model(self, model)).id
        found = yield from self._wire.everything(SaeRecord, path("saes"), filters)
        if sae is not None:
            named = [s for s in found if s.name == sae]
            if not named:
                raise UnknownSae(f"no SAE {sae!r} here: there are {sorted(s.name for s in found)}")
            return named[0]
        usable = _ready_first(found)
        if usable is not None:
            return usable
        if found:
            raise UnknownSae(f"no SAE can be loaded: {'; '.join(f'{s.name!r}: {s.error}' for s in found)}")
        raise UnknownSae(
            "no SAE is registered here: client.saes.upload(...) or client.saes.create(...) adds one"
        )


def choose_model(bound: "Bound[Side]", model: Identified | str | None) -> Flow[ModelRecord]:
    """The model that is meant by a record, an id or a name; None takes the newest that is ready."""
    if isinstance(model, ModelRecord):
        return model
    if model is not None and (not isinstance(model, str) or model.startswith("mdl_")):
        return (yield from Models.get.flow(bound, model))
    wire = bound._wire
    found = yield from wire.everything(ModelRecord, path("models"), given(project_id=wire.project_id))
    chosen = _ready_first([m for m in found if model is None or m.name == model])
    if chosen is not None:
        return chosen
    if model is None:
        raise UnknownModel("no model is ready here: client.models.create(...) adds one")
    raise UnknownModel(f"no model {model!r} here: there are {sorted(m.name for m in found)}")


def _ready_first(records: list[RecordT]) -> RecordT | None:
    for states in (("ready",), ("loading", "registered")):
        for record in records:
            if record.state in states:
                return record
    return None


def _is_ready(
    record: ModelRecord | SaeRecord, until: float, failed: type[UnknownModel] | type[UnknownSae]
) -> bool:
    if record.state == "failed":
        raise failed(f"{record.name!r} cannot be loaded: {record.error or 'the service gave no cause'}")
    if record.state != "ready" and time.monotonic() > until:
        raise DeadlineExceeded(f"{record.name!r} is still {record.state}: wait longer with timeout_s", 5.0)
    return record.state == "ready"
