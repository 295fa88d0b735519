"""From what a suggest_correction job found to a correction of the project, in one step."""

import json

import pytest

from fulcrum.client import Client
from fulcrum.domain.corrections import Correction, Origin, to_dict
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import (
    AlreadyExists,
    InvalidRequest,
    JobUnfinished,
    UnknownCorrection,
)
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import DescribeConcepts, SuggestCorrection, Where
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import ModelRecord, SaeRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.jobs.submitting import Submitter

FOUND = Correction(
    "a" * 64,
    "b" * 64,
    "visual.blocks.3.resid_post",
    (Scale(7, 0.0), Scale(9, 0.25)),
    origin=Origin("group_search", ("c" * 64,), "d" * 64, "discover: light=dark"),
)


@pytest.fixture
def client(platform):
    with Client(platform.url, platform.token_of(platform.admin_user)) as client:
        yield client


@pytest.fixture
def sae(platform):
    p, u = platform.project.id, platform.admin_user.id
    model = ModelRecord(new_id("mdl"), p, "m", ModelRef("folder:demo/clip"), u, now())
    sae = SaeRecord(new_id("sae"), p, "s", model.id, "folder:demo/sae", u, now())
    with platform.store.write() as tx:
        tx.models.add(model)
        tx.saes.add(sae)
    return sae


@pytest.fixture
def submit(platform, sae):
    submitter = Submitter(platform.store, platform.app.state.services.queue, 30)
    asker = Asker(platform.admin_user, ("admin",))
    suggestion = SuggestCorrection("dat_1", sae.id, (Where("light", "dark"),))
    return lambda spec=suggestion: submitter.submit(asker, platform.project.id, spec)


@pytest.fixture
def finished(platform, submit):
    def finish(correction=FOUND):
        job = submit()
        content = json.dumps(to_dict(correction)).encode()
        result = {"correction_artifact": platform.artifacts.put_bytes(content)}
        with platform.store.write() as tx:
            tx.job_tasks.finish_plan(tx.job_tasks.claim(["gpu"], "w", 30.0, 9), [], {})
        with platform.store.write() as tx:
            tx.job_tasks.finish_reduce(tx.job_tasks.claim(["gpu"], "w", 30.0, 9), result)
        return job

    return finish


def test_what_was_found_can_be_looked_at_and_is_saved_with_its_origin(client, finished, sae):
    job = finished()
    found = client.corrections.suggested(job)
    assert (found, found.origin) == (FOUND, FOUND.origin)
    assert list(client.corrections.list()) == []
    saved = client.corrections.save_suggested(job, "dark images", description="at night", note="found")
    assert (saved.name, saved.description, saved.sae_id, saved.model_id, saved.latest) == (
        "dark images",
        "at night",
        sae.id,
        sae.model_id,
        1,
    )
    version = client.corrections.version(saved)
    assert (version.correction, version.correction.origin, version.note) == (FOUND, FOUND.origin, "found")
    with pytest.raises(AlreadyExists, match="dark images"):
        client.corrections.save_suggested(job, "dark images")


def test_what_a_later_job_found_is_the_next_version_unless_it_is_the_same(client, finished):
    saved = client.corrections.save_suggested(finished(), "dark images")
    with pytest.raises(AlreadyExists):
        client.corrections.save_suggested(finished(), correction=saved)
    other = Correction("a" * 64, "b" * 64, FOUND.hook_point, (Scale(7, 0.5),))
    later = client.corrections.save_suggested(finished(other), correction=saved, note="milder")
    assert (later.id, later.latest) == (saved.id, 2)
    assert client.corrections.version(saved, 2).correction == other
    with pytest.raises(UnknownCorrection):
        client.corrections.save_suggested(finished(), correction="cor_none")


def test_only_a_search_that_found_something_can_be_saved_and_under_one_name(client, submit, finished):
    with pytest.raises(JobUnfinished, match="queued"):
        client.corrections.save_suggested(submit(), "a")
    client.jobs.cancel(next(client.jobs.list(state="queued")))
    with pytest.raises(InvalidRequest, match="describe_concepts"):
        client.corrections.suggested(submit(DescribeConcepts("sae_1", "dat_1")))
    client.jobs.cancel(next(client.jobs.list(state="queued")))
    job = finished()
    for both in ({}, {"name": "a", "correction": "cor_1"}):
        with pytest.raises(InvalidRequest, match="give one of them"):
            client.corrections.save_suggested(job, **both)
    nothing = Correction("a" * 64, "b" * 64, FOUND.hook_point, ())
    with pytest.raises(InvalidRequest, match="no edit that helps"):
        client.corrections.save_suggested(finished(nothing), "a")


def test_viewers_look_and_do_not_save_and_strangers_see_nothing(platform, finished):
    job = finished()
    viewer, stranger = platform.as_user("Vic", "viewer"), platform.as_user("Eve")
    assert viewer.get(f"/v1/jobs/{job.id}/correction").status_code == 200
    assert viewer.post(f"/v1/jobs/{job.id}:save", json={"name": "a"}).status_code == 403
    assert stranger.get(f"/v1/jobs/{job.id}/correction").status_code == 404
    assert stranger.post(f"/v1/jobs/{job.id}:save", json={"name": "a"}).status_code == 404
