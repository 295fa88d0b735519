"""Registered SAEs."""

from pathlib import Path

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.loading import ready_first, until_ready
from fulcrum.client.resources.models import choose_model
from fulcrum.client.resources.naming import Identified, Versioned, given, id_of, precondition
from fulcrum.client.steps import FilePart, Flow
from fulcrum.client.wire import path
from fulcrum.domain.errors import InvalidRequest, UnknownSae
from fulcrum.domain.jobs import JobRecord, SplitName
from fulcrum.domain.models import Variant
from fulcrum.domain.records import SaeRecord


class Saes(Bound[Side]):
    """`client.saes`."""

    @operation
    def create(self, name: str, model: Identified | str, source: str) -> Flow[SaeRecord]:
        """Registers an SAE of a model; it loads in the background, see `wait`.

        `source`: `folder:NAME/sub`, `untrained:...`, or `units:<hook point>` for the units of a layer themselves. Files
        of your own: `upload`.
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
    def train(
        self,
        name: str,
        model: Identified | str,
        dataset: Identified | str,
        *,
        hook_point: str | None = None,
        variant: Variant = "topk",
        d_sae: int = 2048,
        k: int = 16,
        n_tokens: int = 1_000_000,
        learning_rate: float = 2e-3,
        batch_size: int = 2048,
        split: SplitName | None = None,
        early_stop: bool = False,
        sparsity: float | None = None,
        seed: int = 0,
    ) -> Flow[JobRecord]:
        """Trains an SAE on a data set, as a job: its curves are `client.jobs.metrics(job)`, and at the end its
        `result["sae_id"]` names the SAE, whose `info.quality` has each figure beside that of an untrained twin.

        Raises InvalidHookPoint, InvalidSaeConfig, InvalidDataset, AlreadyExists.
        """
        body = given(
            dataset_id=id_of(dataset),
            name=name,
            hook_point=hook_point,
            variant=variant,
            d_sae=d_sae,
            k=k,
            n_tokens=n_tokens,
            learning_rate=learning_rate,
            batch_size=batch_size,
            split=split,
            early_stop=early_stop,
            sparsity=sparsity,
            seed=seed,
        )
        where = path("models", f"{id_of(model)}:train-sae")
        return (yield from self._wire.ask(JobRecord, "POST", where, json=body))

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
        return (yield from until_ready(lambda: Saes.get.flow(self, sae), UnknownSae, timeout_s))

    @operation
    def choose(
        self, sae: Identified | str | None = None, model: Identified | str | None = None
    ) -> Flow[SaeRecord]:
        """The SAE that is meant by a record, an id or a name; None takes the newest that is ready, or else
        the newest that may become so, and never the units of a layer.

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
        # Units of a layer stand for an SAE only where somebody names them.
        usable = ready_first([s for s in found if not s.is_units])
        if usable is not None:
            return usable
        if found:
            raise UnknownSae(f"no SAE can be loaded: {'; '.join(f'{s.name!r}: {s.error}' for s in found)}")
        raise UnknownSae(
            "no SAE is registered here: client.saes.upload(...) or client.saes.create(...) adds one"
        )
