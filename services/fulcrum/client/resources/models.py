"""Registered models."""

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.loading import ready_first, until_ready
from fulcrum.client.resources.naming import Identified, Versioned, given, id_of, precondition
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.errors import UnknownModel
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import ModelRecord


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
        return (yield from until_ready(lambda: Models.get.flow(self, model), UnknownModel, timeout_s))


def choose_model(bound: "Bound[Side]", model: Identified | str | None) -> Flow[ModelRecord]:
    """The model that is meant by a record, an id or a name; None takes the newest that is ready."""
    if isinstance(model, ModelRecord):
        return model
    if model is not None and (not isinstance(model, str) or model.startswith("mdl_")):
        return (yield from Models.get.flow(bound, model))
    wire = bound._wire
    found = yield from wire.everything(ModelRecord, path("models"), given(project_id=wire.project_id))
    chosen = ready_first([m for m in found if model is None or m.name == model])
    if chosen is not None:
        return chosen
    if model is None:
        raise UnknownModel("no model is ready here: client.models.create(...) adds one")
    raise UnknownModel(f"no model {model!r} here: there are {sorted(m.name for m in found)}")
