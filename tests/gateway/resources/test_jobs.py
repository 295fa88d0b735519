"""Jobs over HTTP: asked for, watched, cancelled, tried again; kept also when Redis is away."""

import threading

import pytest
import redis

from fulcrum.broker.waking import CeleryQueue
from fulcrum.client import Client
from fulcrum.domain.errors import RateLimited, ServiceUnavailable
from fulcrum.domain.identifiers import now
from fulcrum.domain.jobs import DescribeConcepts, JobStanding
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.jobs.submitting import Submitter

SPEC = DescribeConcepts("sae_1", "dat_1")


@pytest.fixture
def submitter(platform):
    services = platform.app.state.services
    return Submitter(platform.store, services.queue, 3)


@pytest.fixture
def asker(platform):
    return Asker(platform.admin_user, ("admin",))


@pytest.fixture
def submit(platform, submitter, asker):
    return lambda **options: submitter.submit(asker, platform.project.id, SPEC, **options)


def claim(platform):
    with platform.store.write() as tx:
        return tx.job_tasks.claim(["gpu"], "w", 30.0, 9)


def finish(platform, result):
    task = claim(platform)
    with platform.store.write() as tx:
        tx.job_tasks.finish_plan(task, [], {})
    task = claim(platform)
    with platform.store.write() as tx:
        tx.job_events.append(task.job_id, [(now(), "log", {"level": "info", "text": "reducing"})])
        tx.job_tasks.finish_reduce(task, result)


def test_a_job_is_kept_and_wakes_a_worker(platform, submit):
    job = submit()
    assert platform.app.state.services.queue.n_waiting("gpu") == 1
    shown = platform.admin.get(f"/v1/jobs/{job.id}").json()
    assert (shown["job"]["state"], shown["position"]) == ("queued", 1)
    assert shown["job"]["spec"]["sae_id"] == "sae_1"
    assert [j["id"] for j in platform.admin.get("/v1/jobs", params={"state": "queued"}).json()["items"]] == [
        job.id
    ]
    assert platform.admin.get("/v1/jobs", params={"kind": "train_sae"}).json()["items"] == []


def test_the_same_question_is_the_same_job(platform, submit):
    first = submit(key="k" * 64)
    assert submit(key="k" * 64).id == first.id
    finish(platform, {"n": 1})
    assert submit(key="k" * 64).result == {"n": 1}
    assert submit(key="m" * 64).id != first.id


def test_who_has_too_many_unfinished_jobs_is_told(submit):
    for _ in range(3):
        submit()
    with pytest.raises(RateLimited, match="3 unfinished jobs"):
        submit()


def test_a_job_is_cancelled_once_and_tried_again(platform, submit):
    path = f"/v1/jobs/{submit().id}"
    assert platform.admin.post(f"{path}:retry").json()["reason"] == "JOB_UNFINISHED"
    assert platform.admin.post(f"{path}:cancel").json()["state"] == "cancelled"
    assert platform.admin.post(f"{path}:cancel").json()["reason"] == "JOB_FINISHED"
    again = platform.admin.post(f"{path}:retry")
    assert (again.status_code, again.json()["state"]) == (202, "queued")


def test_strangers_do_not_see_jobs_and_viewers_do_not_cancel_them(platform, submit):
    path = f"/v1/jobs/{submit().id}"
    stranger, viewer = platform.as_user("Eve"), platform.as_user("Vic", "viewer")
    for verb in ("", ":watch", "/log", "/metrics"):
        assert stranger.get(path + verb).json()["reason"] == "UNKNOWN_JOB"
    assert viewer.get(path).status_code == 200
    assert viewer.post(f"{path}:cancel").json()["reason"] == "FORBIDDEN"


def test_a_job_is_watched_to_its_end_and_a_watch_goes_on_where_it_broke(platform, submit):
    job = submit()
    token = platform.token_of(platform.admin_user)
    with Client(platform.url, token) as client:
        worker = threading.Thread(target=lambda: finish(platform, {"n": 7}))
        with client.jobs.watch(job) as stream:
            seen = [next(stream)]
            worker.start()
            seen += stream
            assert stream.result().result == {"n": 7}
        worker.join()
        states = [s.job.state for s in seen if isinstance(s, JobStanding)]
        assert (states[0], states[-1]) == ("queued", "succeeded")
        assert [e.content["text"] for e in seen if not isinstance(e, JobStanding)] == ["reducing"]
        assert [e.content["text"] for e in client.jobs.log(job)] == ["reducing"]
        assert list(client.jobs.metrics(job)) == []
        shown = []
        assert client.jobs.wait(job, on_progress=shown.append).state == "succeeded"
        assert len(shown) == 1
    resumed = platform.admin.get(f"/v1/jobs/{job.id}:watch", headers={"Last-Event-ID": "1"}).text
    assert "event: done" in resumed
    assert "reducing" not in resumed


def test_a_job_is_kept_while_redis_is_away(platform, asker, tmp_path):
    away = CeleryQueue(f"unix://{tmp_path}/none.sock")
    with pytest.raises(ServiceUnavailable):
        away.wake("gpu")
    with pytest.raises(ServiceUnavailable):
        away.n_waiting("gpu")
    job = Submitter(platform.store, away, 3).submit(asker, platform.project.id, SPEC)
    assert platform.admin.get(f"/v1/jobs/{job.id}").json()["job"]["state"] == "queued"


def test_wakes_lie_in_a_list_of_redis_for_each_queue(empty_redis):
    queue = CeleryQueue(empty_redis)
    queue.wake("cpu", 2)
    with redis.Redis.from_url(empty_redis) as client:
        assert client.llen("fulcrum-cpu") == 2
    assert (queue.n_waiting("cpu"), queue.n_waiting("gpu")) == (2, 0)
    queue.close()
