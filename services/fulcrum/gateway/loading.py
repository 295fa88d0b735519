"""Loads of models and SAEs that run behind requests, and the records that tell how they went."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, Request

from fulcrum.domain.errors import FulcrumError, InternalError, NotFound, Unavailable
from fulcrum.domain.records import ModelRecord, SaeRecord
from fulcrum.gateway.deps import run_in_thread
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.store.database import Store
from fulcrum.telemetry import logger

log = logger(__name__)


class Loads:
    """One load at a time for each record; whoever needs the record waits for the load that runs.

    Nothing is lost when the gateway ends in the middle: a record that says `loading` is loaded again by whoever
    asks for it next.
    """

    def __init__(self, store: Store, engine: AsyncRemoteEngine) -> None:
        self._store, self._engine = store, engine
        self._running: dict[str, asyncio.Task[Any]] = {}

    def begin_model(self, record: ModelRecord, user: str) -> None:
        """Loads behind the request."""
        self._begin(record.id, self._load_model(record, user))

    def begin_sae(self, record: SaeRecord, model: ModelRecord, user: str) -> None:
        """Loads behind the request, the model too where needed."""
        self._begin(record.id, self._load_sae(record, model, user))

    async def model(self, record: ModelRecord, user: str) -> ModelRecord:
        """The record with its `info`. Raises what prevents the load, and keeps it in the record."""
        if record.info is not None:
            return record
        self.begin_model(record, user)
        # Shielded: others may wait for the same load when this asker goes away.
        loaded: ModelRecord = await asyncio.shield(self._running[record.id])
        return loaded

    async def sae(self, record: SaeRecord, model: ModelRecord, user: str) -> SaeRecord:
        """The record with its `info`. Raises what prevents the load, and keeps it in the record."""
        if record.info is not None:
            return record
        self.begin_sae(record, model, user)
        loaded: SaeRecord = await asyncio.shield(self._running[record.id])
        return loaded

    async def close(self) -> None:
        """Ends the loads that run; the engine may still finish what it began."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _begin(self, id: str, work: Coroutine[Any, Any, Any]) -> None:
        if id in self._running:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work, name=f"load {id}")
        self._running[id] = task
        task.add_done_callback(lambda done: self._end(id, done))

    def _end(self, id: str, task: asyncio.Task[Any]) -> None:
        del self._running[id]
        if not task.cancelled():
            task.exception()  # it stands in the record; asyncio would report it as never looked at

    async def _load_model(self, record: ModelRecord, user: str) -> ModelRecord:
        try:
            info = await self._engine.load_model(record.ref, user=user)
        except Exception as error:
            await self._note("models", record.id, error)
            raise
        return await run_in_thread(self._keep, "models", record.id, info)

    async def _load_sae(self, record: SaeRecord, model: ModelRecord, user: str) -> SaeRecord:
        try:
            model = await self.model(model, user)
            info = await self._engine.load_sae(record.source, model.ref, user=user)
        except Exception as error:
            await self._note("saes", record.id, error)
            raise
        return await run_in_thread(self._keep, "saes", record.id, info)

    def _keep(self, kind: str, id: str, info: Any) -> Any:
        with self._store.write() as tx:
            return getattr(tx, kind).update(id, None, state="ready", info=info, error=None)

    async def _note(self, kind: str, id: str, error: Exception) -> None:
        def note() -> None:
            # What may work later is not the record's fault.
            state = "registered" if isinstance(error, Unavailable) else "failed"
            if isinstance(error, FulcrumError):
                said = f"{error.reason}: {error}"
            else:
                said = f"{InternalError.reason}: something went wrong on our side"
            with self._store.write() as tx:
                getattr(tx, kind).update(id, None, state=state, error=said)

        if not isinstance(error, FulcrumError):
            log.error("load failed", record=id, exc_info=error)
        try:
            await run_in_thread(note)
        except NotFound:
            log.info("deleted while it was loaded", record=id)


@asynccontextmanager
async def open_loads(store: Store, engine: AsyncRemoteEngine) -> AsyncIterator[Loads]:
    """For the application's life."""
    loads = Loads(store, engine)
    try:
        yield loads
    finally:
        await loads.close()


def loads_of(request: Request) -> Loads:
    """The application's."""
    found: Loads = request.app.state.loads
    return found


async def _loads(request: Request) -> Loads:
    return loads_of(request)


LoadsDep = Annotated[Loads, Depends(_loads)]
