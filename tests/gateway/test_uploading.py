"""Archives of data sets over HTTP and through the SDK, imported by a worker in this process."""

import asyncio
import time

import httpx
import pytest
from tests.datasets.images import encoded, picture
from tests.datasets.test_archives import tarred, zipped

from fulcrum.client import AsyncClient, Client
from fulcrum.domain.errors import (
    Forbidden,
    InvalidDataset,
    InvalidRequest,
    QuotaExceeded,
    StaleVersion,
    UnknownDataset,
    UnknownImage,
)
from fulcrum.gateway.settings import Settings
from fulcrum.worker.handlers.import_dataset import ImportDatasetHandler
from fulcrum.worker.machine import Machine
from fulcrum.worker.running import Runner

ROOM = 400_000


@pytest.fixture
def gateway_settings(store, artifacts, empty_redis, tmp_path):
    return Settings(
        database_url=f"sqlite:///{tmp_path / 'fulcrum.db'}",
        artifacts_url=f"file://{tmp_path / 'artifacts'}",
        redis_url=empty_redis,
        inference_address=f"unix:{tmp_path / 'nobody.sock'}",
        requests_per_minute=100_000,
        request_burst=10_000,
        max_archive_bytes=300_000,
        project_quota_bytes=ROOM,
    )


@pytest.fixture
def client(platform):
    with Client(platform.url, platform.token_of(platform.admin_user)) as opened:
        yield opened


@pytest.fixture
def work(platform, tmp_path):
    """Runs what is due."""
    machine = Machine(platform.store, platform.artifacts, tmp_path / "scratch")
    runner = Runner(machine, {"import_dataset": ImportDatasetHandler()})
    return runner.run_until_idle


def files_of(n, first=0):
    return {f"{'ab'[i % 2]}/{i:02d}.png": encoded(picture(i)) for i in range(first, first + n)}


@pytest.fixture
def shops(tmp_path):
    """A folder of images with masks."""
    folder = tmp_path / "shops"
    rows = ["id,source,label,mask_path,group_light"]
    for i in range(10):
        for name, content in ((f"i/{i}.png", picture(i)), (f"m/{i}.png", picture(80 + i)[..., 0])):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(encoded(content))
        rows.append(f"n{i},i/{i}.png,{'ab'[i % 2]},{f'm/{i}.png' if i else ''},{['dark', 'day'][i // 5]}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder


def artifacts_in(tmp_path):
    return [p for p in (tmp_path / "artifacts").rglob("*") if p.is_file()]


def test_a_folder_is_uploaded_imported_and_looked_at(client, work, shops, tmp_path):
    dataset = client.datasets.create("shops")
    sent = []
    job = client.datasets.upload(
        dataset, shops, seed=1, on_sent=lambda done, total: sent.append((done, total))
    )
    assert (job.kind, job.state, job.spec.seed) == ("import_dataset", "queued", 1)
    assert sent[-1][0] == sent[-1][1] == sum(p.stat().st_size for p in shops.rglob("*") if p.is_file())
    work()
    ended = client.jobs.wait(job)
    assert ended.state == "succeeded", ended.error
    assert client.datasets.get(dataset).n_images == 10
    images = list(client.datasets.images(dataset, where={"light": "dark"}))
    assert [i.id for i in images] == [f"n{i}" for i in range(5)]
    assert {(i.width, i.height) for i in images} == {(48, 40)}
    assert all(len(i.phash) == 16 and len(i.pixels_sha256) == 64 for i in images)
    assert client.datasets.image_content(dataset, "n3") == (shops / "i" / "3.png").read_bytes()
    assert client.datasets.mask(dataset, images[3]) == (shops / "m" / "3.png").read_bytes()
    with pytest.raises(UnknownImage, match="no mask"):
        client.datasets.mask(dataset, "n0")
    report = client.datasets.report(dataset)
    assert (report.n_images, report.n_masks, report.splits, report.n_leaks) == (10, 9, "new", 0)
    assert report.digest == client.datasets.get(dataset).digest == ended.result["digest"]


def test_thumbnails_come_from_the_import_also_when_the_original_is_gone(client, platform, work, shops):
    dataset = client.datasets.create("shops")
    client.datasets.upload(dataset, shops)
    work()
    first = next(client.datasets.images(dataset))
    platform.artifacts.delete(first.sha256)
    assert client.datasets.thumbnail(dataset, first)[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize("make", [zipped, tarred, lambda f: tarred(f, "w:gz")], ids=["zip", "tar", "gz"])
def test_an_archive_is_uploaded_as_it_is(client, platform, work, tmp_path, make):
    path = tmp_path / {b"PK": "a.zip", b"\x1f\x8b": "a.tgz"}.get(make({})[:2], "a.tar")
    path.write_bytes(make(files_of(8)))
    dataset = client.datasets.create("letters")

    async def upload():
        async with AsyncClient(platform.url, platform.token_of(platform.admin_user)) as waiting:
            return await waiting.datasets.upload(dataset, path)

    job = asyncio.run(upload())
    work()
    assert client.jobs.wait(job).state == "succeeded"
    assert client.datasets.get(dataset).class_names == ("a", "b")


def test_contents_of_before_can_be_looked_at_by_their_digest(client, work, tmp_path):
    dataset = client.datasets.create("letters")
    path = tmp_path / "a.zip"
    digests = []
    for first in (0, 20):
        path.write_bytes(zipped(files_of(4, first)))
        client.datasets.upload(dataset, path)
        work()
        digests.append(client.datasets.get(dataset).digest)
    assert [v.digest for v in client.datasets.versions(dataset)] == digests[::-1]
    old = list(client.datasets.images(dataset, digest=digests[0]))
    assert [i.id for i in old] == sorted(files_of(4))
    assert client.datasets.image_content(dataset, old[0], digest=digests[0]) == files_of(4)[old[0].id]
    assert client.datasets.facets(dataset, digest=digests[0]).digest == digests[0]
    assert client.datasets.report(dataset, digest=digests[0]).digest == digests[0]
    with pytest.raises(UnknownImage):
        client.datasets.thumbnail(dataset, old[0].id)
    with pytest.raises(UnknownDataset, match="never had the content"):
        client.datasets.report(dataset, digest="f" * 64)


@pytest.mark.parametrize(
    ("content", "status", "reason", "words"),
    [
        (b"", 422, "INVALID_DATASET", "nothing was sent"),
        (b"hello", 422, "INVALID_DATASET", "neither zip, tar nor tar.gz"),
        (encoded(picture(1)), 422, "INVALID_DATASET", "begins with 89 50 4e 47"),
        (b"PK" + bytes(400_000), 413, "PAYLOAD_TOO_LARGE", "allowed are"),
    ],
)
def test_what_is_no_archive_or_too_large_is_refused_at_once(
    client, platform, tmp_path, content, status, reason, words
):
    dataset = client.datasets.create("letters")
    answer = platform.admin.post(f"/v1/datasets/{dataset.id}:upload", content=content)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert words in answer.json()["detail"]
    assert list(client.jobs.list()) == []
    assert artifacts_in(tmp_path) == []


def test_a_body_of_unannounced_length_is_stopped_at_the_limit(client, platform, tmp_path):
    dataset = client.datasets.create("letters")

    def endless():
        yield b"PK"
        for _ in range(100):
            yield bytes(100_000)

    try:
        answer = platform.admin.post(f"/v1/datasets/{dataset.id}:upload", content=endless())
        assert (answer.status_code, answer.json()["reason"]) == (413, "PAYLOAD_TOO_LARGE")
    except httpx.TransportError:
        pass  # the connection was closed while the rest was being sent
    assert list(client.jobs.list()) == []
    assert artifacts_in(tmp_path) == []


def test_an_upload_that_breaks_off_leaves_nothing(client, platform, tmp_path):
    dataset = client.datasets.create("letters")

    def breaking():
        yield b"PK" + bytes(100_000)
        raise RuntimeError("the train enters a tunnel")

    with pytest.raises(RuntimeError):
        platform.admin.post(f"/v1/datasets/{dataset.id}:upload", content=breaking())
    for _ in range(100):
        if artifacts_in(tmp_path) == []:
            break
        time.sleep(0.05)
    assert artifacts_in(tmp_path) == []
    assert list(client.jobs.list()) == []


def test_a_project_has_its_quota(client, platform, work, tmp_path):
    path = tmp_path / "a.zip"
    dataset = client.datasets.create("first")
    path.write_bytes(zipped(files_of(70)))
    assert ROOM / 2 < path.stat().st_size < 300_000
    client.datasets.upload(dataset, path)
    work()
    assert client.datasets.get(dataset).state == "ready"
    other = client.datasets.create("second")
    with pytest.raises(QuotaExceeded, match=f"together {ROOM} are allowed"):
        client.datasets.upload(other, path)
    # What it replaces is no obstacle, nor what was deleted.
    client.datasets.upload(dataset, path)
    work()
    client.datasets.delete(client.datasets.get(dataset))
    client.datasets.upload(other, path)
    work()
    assert client.datasets.get(other).state == "ready"


def test_an_import_for_a_version_that_has_changed_is_not_begun(client, platform):
    dataset = client.datasets.create("letters")
    client.datasets.update(dataset, description="mine")
    with pytest.raises(StaleVersion):
        client.datasets.import_images(dataset, "folder:lab/a", expected_version=dataset.version)
    job = client.datasets.import_images(dataset, "bucket:lab/a", expected_version=2)
    assert (job.spec.replaces, job.spec.quota_bytes) == ("", ROOM)


def test_viewers_and_strangers_upload_nothing(client, platform, tmp_path):
    dataset = client.datasets.create("letters")
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(files_of(2)))
    for name, role, error in (("Vera", "viewer", Forbidden), ("Eve", None, UnknownDataset)):
        with (
            Client(platform.url, platform.token_of(platform.new_user(name, role))) as other,
            pytest.raises(error),
        ):
            other.datasets.upload(dataset, path)
    assert artifacts_in(tmp_path) == []


def test_the_sdk_says_what_can_be_uploaded(client, tmp_path):
    dataset = client.datasets.create("letters")
    with pytest.raises(InvalidRequest, match="does not exist"):
        client.datasets.upload(dataset, tmp_path / "nothing.zip")
    (tmp_path / "rows.csv").write_text("id,source\n")
    with pytest.raises(InvalidRequest, match="name the folder"):
        client.datasets.upload(dataset, tmp_path / "rows.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRequest, match="no image"):
        client.datasets.upload(dataset, tmp_path / "empty")
    (tmp_path / "fake.zip").write_bytes(b"hello")
    with pytest.raises(InvalidDataset, match="neither zip"):
        client.datasets.upload(dataset, tmp_path / "fake.zip")
