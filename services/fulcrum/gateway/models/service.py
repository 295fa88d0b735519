"""What happens to registered models."""

from fulcrum.domain import models as domain
from fulcrum.domain.errors import Conflict, InvalidRequest, UnknownModel
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import ModelRecord, Page, Role
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import PageParams
from fulcrum.gateway.models.schemas import ModelChange, NewModel
from fulcrum.gateway.reach import reach
from fulcrum.gateway.schemas import changes
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction


def find(asker: Asker, tx: Transaction, model_id: str, role: Role) -> ModelRecord:
    """Raises UnknownModel, Forbidden."""
    return reach(asker, tx, tx.models, model_id, role, UnknownModel, "model")


def register(store: Store, asker: Asker, body: NewModel) -> ModelRecord:
    """A record in state `loading`. Raises AlreadyExists for a taken name."""
    if body.random_weights and body.pretrained is not None:
        raise InvalidRequest(f"random_weights and pretrained={body.pretrained!r} exclude each other")
    with store.write() as tx:
        record = ModelRecord(
            id=new_id("mdl"),
            project_id=asker.project(tx, body.project_id, "admin"),
            name=body.name,
            ref=domain.ModelRef(body.model_name, body.pretrained, body.random_weights, body.seed),
            created_by=asker.user.id,
            created_at=now(),
            state="loading",
        )
        tx.models.add(record)
        tx.audit.append(
            asker.user.id, "model.register", record.id, {"name": record.name, "model_name": body.model_name}
        )
    return record


def page(store: Store, asker: Asker, project_id: str | None, params: PageParams) -> Page[ModelRecord]:
    """Raises UnknownProject."""
    with store.read() as tx:
        project = asker.project(tx, project_id, "viewer")
        return tx.models.list(project_id=project, limit=params.limit, cursor=params.cursor)


def get(store: Store, asker: Asker, model_id: str, role: Role = "viewer") -> ModelRecord:
    """Raises UnknownModel."""
    with store.read() as tx:
        return find(asker, tx, model_id, role)


def change(store: Store, asker: Asker, model_id: str, body: ModelChange, expected: int | None) -> ModelRecord:
    """Raises UnknownModel, StaleVersion, AlreadyExists."""
    named = changes(body)
    with store.write() as tx:
        find(asker, tx, model_id, "admin")
        record = tx.models.update(model_id, expected, **named)
        tx.audit.append(asker.user.id, "model.change", model_id, named)
    return record


def remove(store: Store, asker: Asker, model_id: str, expected: int | None) -> None:
    """Raises UnknownModel, StaleVersion, and Conflict while SAEs are registered for it."""
    with store.write() as tx:
        record = find(asker, tx, model_id, "admin")
        used = tx.saes.list(project_id=record.project_id, model_id=model_id, limit=1).items
        if used:
            raise Conflict(
                f"SAE {used[0].name!r} ({used[0].id}) is registered for this model: delete it first"
            )
        tx.models.delete(model_id, expected)
        tx.audit.append(asker.user.id, "model.delete", model_id, {"name": record.name})
