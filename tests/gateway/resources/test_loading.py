"""Loads behind requests: one at a time for each record, and its record always says how it went."""

import asyncio

import pytest

from fulcrum.domain.errors import ServiceUnavailable, UnknownModel
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.models import ModelInfo, ModelRef, SaeInfo
from fulcrum.domain.records import ModelRecord, Project, SaeRecord, User
from fulcrum.gateway.loading import open_loads


class SlowEngine:
    """Loads when told to, or fails with `error`."""

    def __init__(self, info, sae_info):
        self.info, self.sae_info = info, sae_info
        self.error = None
        self.n_loads = 0
        self.may_finish = asyncio.Event()
        self.started = asyncio.Event()

    async def load_model(self, ref, *, user=""):
        self.n_loads += 1
        self.started.set()
        await self.may_finish.wait()
        if self.error is not None:
            raise self.error
        return self.info

    async def load_sae(self, path, model, *, user=""):
        if self.error is not None:
            raise self.error
        return self.sae_info


@pytest.fixture
def infos(local_engine):
    from fulcrum.demo.shipped import demo_model, demo_sae

    return local_engine.load_model(demo_model()), local_engine.load_sae(demo_sae(), demo_model())


@pytest.fixture
def records(store):
    user, project = User(new_id("usr"), "u", now()), Project(new_id("prj"), "p", now())
    model = ModelRecord(new_id("mdl"), project.id, "m", ModelRef("x"), user.id, now(), "loading")
    sae = SaeRecord(new_id("sae"), project.id, "s", model.id, "folder:x/y", user.id, now(), "loading")
    with store.write() as tx:
        tx.users.add(user)
        tx.projects.add(project)
        tx.models.add(model)
        tx.saes.add(sae)
    return model, sae


def model_in(store, record):
    with store.read() as tx:
        return tx.models.get(record.id)


def run(store, infos, scenario):
    async def main():
        engine = SlowEngine(*infos)
        async with open_loads(store, engine) as loads:
            await scenario(loads, engine)

    asyncio.run(main())


def test_all_who_wait_share_one_load(store, infos, records):
    async def scenario(loads, engine):
        model, _ = records
        waiting = [asyncio.create_task(loads.model(model, "u")) for _ in range(5)]
        await engine.started.wait()
        engine.may_finish.set()
        found = await asyncio.gather(*waiting)
        assert {r.state for r in found} == {"ready"}
        assert engine.n_loads == 1

    run(store, infos, scenario)
    assert isinstance(model_in(store, records[0]).info, ModelInfo)


def test_an_asker_who_goes_away_does_not_end_the_load(store, infos, records):
    async def scenario(loads, engine):
        model, _ = records
        first = asyncio.create_task(loads.model(model, "u"))
        second = asyncio.create_task(loads.model(model, "u"))
        await engine.started.wait()
        first.cancel()
        engine.may_finish.set()
        assert (await second).state == "ready"

    run(store, infos, scenario)


def test_an_sae_loads_its_model_first(store, infos, records):
    async def scenario(loads, engine):
        model, sae = records
        engine.may_finish.set()
        assert isinstance((await loads.sae(sae, model, "u")).info, SaeInfo)

    run(store, infos, scenario)
    assert model_in(store, records[0]).state == "ready"


def test_inference_that_is_away_is_not_the_models_fault(store, infos, records):
    async def scenario(loads, engine):
        model, _ = records
        engine.may_finish.set()
        engine.error = ServiceUnavailable("inference is not reachable", 2.0)
        with pytest.raises(ServiceUnavailable):
            await loads.model(model, "u")
        noted = model_in(store, model)
        assert noted.state == "registered"
        assert noted.error == "SERVICE_UNAVAILABLE: inference is not reachable"
        engine.error = None
        again = await loads.model(noted, "u")
        assert (again.state, again.error) == ("ready", None)

    run(store, infos, scenario)


def test_a_bug_during_a_load_is_told_without_its_inside(store, infos, records):
    async def scenario(loads, engine):
        engine.may_finish.set()
        engine.error = RuntimeError("secret of the inside")
        with pytest.raises(RuntimeError):
            await loads.model(records[0], "u")

    run(store, infos, scenario)
    noted = model_in(store, records[0])
    assert noted.state == "failed"
    assert noted.error.startswith("INTERNAL_ERROR: ")
    assert "secret" not in noted.error


def test_a_record_that_is_deleted_while_it_loads_stays_deleted(store, infos, records):
    async def scenario(loads, engine):
        model, _ = records
        for error in (None, UnknownModel("gone")):
            engine.may_finish.clear()
            engine.started.clear()
            engine.error = error
            waiting = asyncio.create_task(loads.model(model, "u"))
            await engine.started.wait()
            if error is None:
                with store.write() as tx:
                    tx.models.delete(model.id)
            engine.may_finish.set()
            with pytest.raises(UnknownModel):
                await waiting
            with pytest.raises(UnknownModel):
                model_in(store, model)

    run(store, infos, scenario)


def test_the_end_of_the_gateway_ends_its_loads(store, infos, records):
    async def scenario(loads, engine):
        loads.begin_model(records[0], "u")
        await engine.started.wait()

    run(store, infos, scenario)
    assert model_in(store, records[0]).state == "loading"  # the next gateway takes it up again
