"""What happens to registered SAEs."""

from fulcrum.domain.errors import InvalidRequest, UnknownSae
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.models import UNITS
from fulcrum.domain.records import ModelRecord, Page, Role, SaeRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import PageParams
from fulcrum.gateway.models import service as models
from fulcrum.gateway.reach import reach
from fulcrum.gateway.saes.schemas import SaeChange
from fulcrum.gateway.schemas import changes
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction


def find(asker: Asker, tx: Transaction, sae_id: str, role: Role) -> SaeRecord:
    """Raises UnknownSae, Forbidden."""
    return reach(asker, tx, tx.saes, sae_id, role, UnknownSae, "SAE")


def check_place(store: Store, asker: Asker, project_id: str | None, model_id: str) -> None:
    """Raises what `register` would, but for the name."""
    with store.read() as tx:
        _model_for(tx, asker, project_id, model_id)


def register(
    store: Store, asker: Asker, project_id: str | None, model_id: str, name: str, source: str
) -> tuple[SaeRecord, ModelRecord]:
    """A record in state `loading`, in its model's project, and the model. Raises AlreadyExists for a taken name."""
    with store.write() as tx:
        model = _model_for(tx, asker, project_id, model_id)
        return _added(tx, asker, model, name, source), model


def units_of(tx: Transaction, asker: Asker, model: ModelRecord, hook_point: str) -> SaeRecord:
    """The units of a layer as a dictionary of the model's: the record that there is, or a new one in state `loading`.

    Analysts may make one: it brings no weights, and loads nothing but the model.
    """
    source = f"{UNITS}{hook_point}"
    known = tx.saes.of_source(model.id, source)
    if known is not None:
        return known
    name = f"units of {hook_point}, {model.name}"[:200]
    if tx.saes.named(model.project_id, name) is not None:  # somebody called another one so
        name = f"{name[:160]} ({new_id('u')[-8:]})"
    return _added(tx, asker, model, name, source)


def _added(tx: Transaction, asker: Asker, model: ModelRecord, name: str, source: str) -> SaeRecord:
    record = SaeRecord(
        id=new_id("sae"),
        project_id=model.project_id,
        name=name,
        model_id=model.id,
        source=source,
        created_by=asker.user.id,
        created_at=now(),
        state="loading",
    )
    tx.saes.add(record)
    tx.audit.append(asker.user.id, "sae.register", record.id, {"name": name, "source": source})
    return record


def page(
    store: Store, asker: Asker, project_id: str | None, model_id: str | None, params: PageParams
) -> Page[SaeRecord]:
    """Raises UnknownProject."""
    with store.read() as tx:
        project = asker.project(tx, project_id, "viewer")
        return tx.saes.list(project_id=project, limit=params.limit, cursor=params.cursor, model_id=model_id)


def get(store: Store, asker: Asker, sae_id: str, role: Role = "viewer") -> tuple[SaeRecord, ModelRecord]:
    """The SAE and its model. Raises UnknownSae."""
    with store.read() as tx:
        record = find(asker, tx, sae_id, role)
        return record, tx.models.get(record.model_id)


def change(store: Store, asker: Asker, sae_id: str, body: SaeChange, expected: int | None) -> SaeRecord:
    """Raises UnknownSae, StaleVersion, AlreadyExists."""
    named = changes(body)
    with store.write() as tx:
        find(asker, tx, sae_id, "admin")
        record = tx.saes.update(sae_id, expected, **named)
        tx.audit.append(asker.user.id, "sae.change", sae_id, named)
    return record


def remove(store: Store, asker: Asker, sae_id: str, expected: int | None) -> None:
    """Raises UnknownSae, StaleVersion. An uploaded file stays: another SAE or an old result may name it."""
    with store.write() as tx:
        record = find(asker, tx, sae_id, "admin")
        tx.saes.delete(sae_id, expected)
        tx.audit.append(asker.user.id, "sae.delete", sae_id, {"name": record.name})


def _model_for(tx: Transaction, asker: Asker, project_id: str | None, model_id: str) -> ModelRecord:
    """The model of a new SAE. Raises UnknownModel, Forbidden, and InvalidRequest for a model of another project."""
    model = models.find(asker, tx, model_id, "admin")
    if project_id is not None and asker.project(tx, project_id, "admin") != model.project_id:
        raise InvalidRequest(f"model {model_id} belongs to project {model.project_id}, not to {project_id}")
    return model
