"""`bucket:NAME/prefix`: images of a bucket that the administrator allowed (moto's server, over HTTP)."""

import json

import boto3
import pytest
from tests.datasets.images import encoded, picture
from tests.store.test_artifacts import BUCKET, s3_endpoint  # noqa: F401
from tests.worker.test_importing import as_it_is, new_dataset

from fulcrum.domain.errors import InvalidSettings
from fulcrum.domain.jobs import ImportDataset
from fulcrum.store.buckets import open_bucket
from fulcrum.worker.handlers.import_dataset import ImportDatasetHandler


@pytest.fixture
def put(s3_endpoint):  # noqa: F811
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    return lambda name, content: client.put_object(Bucket=BUCKET, Key=name, Body=content)


@pytest.fixture
def importing(workshop, s3_endpoint):  # noqa: F811
    def run(source, record=None, handlers=None):
        machine = workshop.new_machine()
        machine.buckets = {"lab": f"s3://{BUCKET}/data?endpoint_url={s3_endpoint}"}
        job = workshop.submit(ImportDataset((record or new_dataset(workshop)).id, source))
        workshop.runner(handlers, machine=machine).run_until_idle()
        return workshop.job(job)

    return run


def test_images_below_a_prefix_become_a_data_set_without_the_rest_of_the_bucket(workshop, put, importing):
    for i in range(8):
        put(f"data/signs/{'ab'[i % 2]}/{i}.png", encoded(picture(i)))
    put("data/signs-of-others/a/9.png", encoded(picture(9)))
    put("data/signs/notes.md", b"x")
    put("data/signs/.hidden/1.png", b"x")
    record = new_dataset(workshop)
    job = importing("bucket:lab/signs", record)
    assert job.state == "succeeded", job.error
    ready = as_it_is(workshop, record)
    assert (ready.n_images, ready.class_names) == (8, ("a", "b"))
    assert not (workshop.machine.jobs_folder / job.id).exists()
    # The same objects again are not looked at again, a changed one is.
    again = importing("bucket:lab/signs")
    assert (again.state, again.n_shards_reused) == ("succeeded", 1)
    put("data/signs/a/0.png", encoded(picture(30)))
    changed = importing("bucket:lab/signs", record)
    assert (changed.state, changed.n_shards_reused) == ("succeeded", 0)
    assert as_it_is(workshop, record).digest != ready.digest


def test_a_manifest_in_a_bucket_names_its_images(workshop, put, importing):
    put("data/listed/manifest.csv", b"id,source,label,split\nx,i/1.png,cup,select\ny,i/2.png,fish,confirm\n")
    for i in (1, 2):
        put(f"data/listed/i/{i}.png", encoded(picture(i)))
    record = new_dataset(workshop)
    job = importing("bucket:lab/listed", record)
    assert job.state == "succeeded", job.error
    assert as_it_is(workshop, record).n_by_split == {"select": 1, "confirm": 1}


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("bucket:lab/nothing", "UNKNOWN_DATASET: bucket:lab/nothing: no image"),
        ("bucket:other/signs", "UNKNOWN_DATASET"),
        ("bucket:lab/../secrets", "UNKNOWN_DATASET"),
        ("bucket:lab/odd", "INVALID_DATASET: bucket:lab/odd"),
    ],
)
def test_what_may_not_be_read_says_so(workshop, put, importing, source, error):
    put("secrets/a/1.png", encoded(picture(1)))
    put("data/odd/a/../../1.png", encoded(picture(1)))
    record = new_dataset(workshop)
    job = importing(source, record)
    assert job.state == "failed"
    assert job.error.startswith(error)
    assert "127.0.0.1" not in json.dumps(job.error)
    assert as_it_is(workshop, record) == record


def test_a_bucket_that_cannot_be_reached_is_tried_again(workshop, put, importing, s3_endpoint):  # noqa: F811
    record = new_dataset(workshop)
    machine = workshop.new_machine()
    machine.buckets = {"lab": f"s3://{BUCKET}?endpoint_url=http://127.0.0.1:9"}
    job = workshop.submit(ImportDataset(record.id, "bucket:lab/signs"))
    workshop.runner(machine=machine).run_until_idle()
    assert workshop.job(job).state == "running"
    assert any("the bucket cannot be read" in line for line in workshop.log(job))


def test_what_was_fetched_counts_not_what_the_bucket_holds_now(workshop, put, importing, monkeypatch):
    monkeypatch.setattr("fulcrum.worker.handlers.import_dataset.IMAGES_PER_PART", 4)
    for i in range(8):
        put(f"data/moving/a/{i}.png", encoded(picture(i)))

    class Forgetful(ImportDatasetHandler):
        def run_shard(self, work, shard):
            put("data/moving/a/0.png", encoded(picture(77)))
            return ImportDatasetHandler().run_shard(work, shard)

    job = importing("bucket:lab/moving", handlers={"import_dataset": Forgetful()})
    assert job.state == "succeeded", job.error


@pytest.mark.parametrize("url", ["file:///etc", "s3://", "s3://a/b?cache=/tmp", "http://a/b"])
def test_a_setting_that_is_no_bucket_is_refused(url):
    with pytest.raises(InvalidSettings, match="expected s3://BUCKET/PREFIX"):
        open_bucket(url)
