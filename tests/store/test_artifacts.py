"""Bytes by the hash of their content, in a folder and in a bucket (moto's server, over HTTP)."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from fulcrum.domain.errors import (
    CorruptArtifact,
    InvalidSettings,
    PayloadTooLarge,
    ServiceUnavailable,
    UnknownArtifact,
)
from fulcrum.store.artifacts import INCOMING, open_artifacts

from .test_concurrency import SERVICES

BUCKET = "fulcrum"
_prefixes = count()


def sha(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="session")
def s3_endpoint():
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint
        server.stop()


class Place:
    """Where artifacts are, and how to damage them behind the back of the store."""

    def __init__(self, kind, tmp_path, endpoint):
        self.endpoint = endpoint
        self.cache = tmp_path / "cache"
        if kind == "file":
            self.folder = tmp_path / "arti facts"
            self.url = self.folder.as_uri()
        else:
            self.prefix = f"some/prefix{next(_prefixes)}"
            self.url = f"s3://{BUCKET}/{self.prefix}?endpoint_url={endpoint}"
            self.bucket = boto3.resource("s3", endpoint_url=endpoint).Bucket(BUCKET)
        self.kind = kind

    def open(self):
        return open_artifacts(self.url, self.cache)

    def names(self):
        """All that is stored, incomplete things too."""
        if self.kind == "file":
            return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file())
        return sorted(
            o.key.removeprefix(self.prefix + "/") for o in self.bucket.objects.filter(Prefix=self.prefix)
        )

    def overwrite(self, sha256, content):
        name = f"{sha256[:2]}/{sha256[2:4]}/{sha256}"
        if self.kind == "file":
            (self.folder / name).write_bytes(content)
        else:
            self.bucket.put_object(Key=f"{self.prefix}/{name}", Body=content)


@pytest.fixture(params=["file", "s3"])
def place(request, tmp_path):
    endpoint = request.getfixturevalue("s3_endpoint") if request.param == "s3" else None
    return Place(request.param, tmp_path, endpoint)


@pytest.fixture
def artifacts(place):
    with place.open() as artifacts:
        yield artifacts


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(max_size=100), max_size=5))
def test_what_is_put_is_read_again_by_its_hash(artifacts, chunks):
    content = b"".join(chunks)
    assert artifacts.put_stream(iter(chunks)) == (sha(content), len(content))
    assert artifacts.exists(sha(content))
    assert artifacts.size(sha(content)) == len(content)
    assert artifacts.read_bytes(sha(content)) == content
    assert artifacts.local_path(sha(content)).read_bytes() == content
    with artifacts.open(sha(content)) as reading:
        assert b"".join(reading) == content


def test_an_artifact_lies_under_its_hash_and_the_same_bytes_lie_once(artifacts, place):
    assert artifacts.put_bytes(b"abc") == artifacts.put_bytes(b"abc") == sha(b"abc")
    assert place.names() == [f"ba/78/{sha(b'abc')}"]


def test_altered_bytes_show_before_the_last_of_them_is_given_out(artifacts, place):
    sha256 = artifacts.put_bytes(b"0123456789")
    place.overwrite(sha256, b"0123X56789")
    with artifacts.open(sha256) as reading:
        assert reading.read(0) == b""
        assert reading.read(9) == b"0123X5678"
        with pytest.raises(CorruptArtifact):
            reading.read(1)


def test_another_process_sees_what_was_put(artifacts, place):
    sha256 = artifacts.put_bytes(b"abc")
    code = "import sys; from fulcrum.store.artifacts import open_artifacts; from pathlib import Path\n"
    code += "with open_artifacts(sys.argv[1], Path(sys.argv[2])) as a: print(a.read_bytes(sys.argv[3]))\n"
    code += "print(any(m in sys.modules for m in ('sqlalchemy', 'torch')))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, place.url, place.cache, sha256],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SERVICES)},
        check=False,
    )
    assert done.stdout.split("\n")[:2] == ["b'abc'", "False"], done.stderr


def test_too_many_bytes_are_refused_and_nothing_stays(artifacts, place):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield b"x" * 1000

    with pytest.raises(PayloadTooLarge, match="2500"):
        artifacts.put_stream(endless(), max_bytes=2500)
    assert len(taken) == 3
    assert place.names() == []
    assert artifacts.put_stream([b"x" * 2500], max_bytes=2500)[1] == 2500


def test_a_sender_who_breaks_off_leaves_nothing(artifacts, place):
    class WentAway(Exception):
        pass

    def broken():
        yield b"half of it"
        raise WentAway

    with pytest.raises(WentAway):
        artifacts.put_stream(broken())
    assert place.names() == []
    assert list(place.cache.rglob("tmp*")) == []


def test_bytes_of_another_hash_than_announced_are_refused(artifacts, place):
    with pytest.raises(CorruptArtifact, match="announced"):
        artifacts.put_stream([b"abc"], expected_sha256="0" * 64)
    assert place.names() == []
    artifacts.put_stream([b"abc"], expected_sha256=sha(b"abc"))


def test_altered_bytes_are_never_given_out_as_the_artifact(artifacts, place):
    sha256 = artifacts.put_bytes(b"abc" * 1000)
    for altered in (b"abd" * 1000, b"abc" * 999, b"", b"abc" * 1001):
        place.overwrite(sha256, altered)
        with pytest.raises(CorruptArtifact, match=sha256):
            artifacts.read_bytes(sha256)
        with pytest.raises(CorruptArtifact), artifacts.open(sha256) as reading:
            list(reading)
        with pytest.raises(CorruptArtifact), artifacts.open(sha256) as reading:
            reading.read(-1)
        with pytest.raises(CorruptArtifact):
            artifacts.local_path(sha256)
    artifacts.put_bytes(b"abc" * 1000)  # sent again, they are repaired
    assert artifacts.read_bytes(sha256) == b"abc" * 1000


def test_what_is_not_there_is_unknown(artifacts):
    sha256 = sha(b"never put")
    assert not artifacts.exists(sha256)
    for use in (
        artifacts.read_bytes,
        artifacts.open,
        artifacts.size,
        artifacts.delete,
        artifacts.local_path,
    ):
        with pytest.raises(UnknownArtifact, match=sha256):
            use(sha256)


NO_HASHES = [
    "",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "A" * 64,
    "a" * 63,
    "a" * 65,
    "a" * 64 + "\n",
    "é" * 64,
]


def test_nothing_but_a_hash_ever_becomes_a_path(artifacts):
    for name in [*NO_HASHES, "aa/aa/" + "a" * 64, "\x00" * 64]:
        assert not artifacts.exists(name)
        for use in (
            artifacts.read_bytes,
            artifacts.open,
            artifacts.size,
            artifacts.delete,
            artifacts.local_path,
        ):
            with pytest.raises(UnknownArtifact):
                use(name)


def test_a_deleted_artifact_is_gone_also_as_a_local_copy(artifacts):
    sha256 = artifacts.put_bytes(b"abc")
    local = artifacts.local_path(sha256)
    artifacts.delete(sha256)
    assert not artifacts.exists(sha256)
    assert not local.exists()
    with pytest.raises(UnknownArtifact):
        artifacts.local_path(sha256)


def test_reading_more_than_the_limit_is_refused_before_it_begins(artifacts):
    sha256 = artifacts.put_bytes(b"x" * 100)
    assert artifacts.read_bytes(sha256, max_bytes=100) == b"x" * 100
    with pytest.raises(PayloadTooLarge, match="100 bytes"):
        artifacts.read_bytes(sha256, max_bytes=99)


def test_several_threads_put_and_read_the_same_and_different_bytes(artifacts, place):
    contents = [bytes([n]) * 200_000 for n in range(4)]
    failures = []

    def work():
        try:
            for content in contents:
                sha256 = artifacts.put_bytes(content)
                assert artifacts.read_bytes(sha256) == content
                assert artifacts.local_path(sha256).read_bytes() == content
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(Path(n).name for n in place.names()) == sorted(map(sha, contents))


def test_a_damaged_local_copy_of_a_bucket_is_fetched_again(tmp_path, s3_endpoint):
    with Place("s3", tmp_path, s3_endpoint).open() as artifacts:
        sha256 = artifacts.put_bytes(b"abc")
        local = artifacts.local_path(sha256)
        local.write_bytes(b"abX")
        assert artifacts.local_path(sha256).read_bytes() == b"abc"


def test_large_bytes_travel_in_parts(artifacts):
    part = os.urandom(1 << 20)
    sha256, size_bytes = artifacts.put_stream(part for _ in range(24))
    assert size_bytes == 24 << 20
    assert artifacts.local_path(sha256).stat().st_size == size_bytes


def test_an_upload_can_be_written_as_it_arrives(artifacts, place):
    with artifacts.incoming(max_bytes=10) as file:
        file.write(b"ab")
        file.write(b"c")
        assert place.names() in ([], [n for n in place.names() if n.startswith(INCOMING)])
        assert file.commit(expected_sha256=sha(b"abc")) == (sha(b"abc"), 3)
    assert place.names() == [f"ba/78/{sha(b'abc')}"]


def test_what_a_killed_process_left_is_swept_and_what_still_grows_is_not(place):
    with place.open() as artifacts:
        uploads = [artifacts.incoming() for _ in range(2)]
        old, running = (u._path for u in uploads)
        os.utime(old, (0, 0))
        with place.open():
            assert (old.exists(), running.exists()) == (False, True)
        for upload in uploads:
            upload.__exit__(None, None, None)


def test_a_bucket_that_is_not_there_is_unavailable(tmp_path, s3_endpoint):
    with open_artifacts(f"s3://no-such-bucket/x?endpoint_url={s3_endpoint}&cache={tmp_path}") as artifacts:
        with pytest.raises(ServiceUnavailable) as raised:
            artifacts.put_bytes(b"abc")
        assert raised.value.retry_after_s is not None


def test_a_server_that_does_not_answer_is_unavailable(tmp_path, s3_endpoint):
    with socket.socket() as closed:  # bound, never listening: nobody else gets the port meanwhile
        closed.bind(("127.0.0.1", 0))
        url = f"s3://{BUCKET}/x?endpoint_url=http://127.0.0.1:{closed.getsockname()[1]}&cache={tmp_path}"
        with open_artifacts(url) as artifacts, pytest.raises(ServiceUnavailable):
            artifacts.read_bytes("a" * 64)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidSettings, match="file/artifacts"):
        open_artifacts((tmp_path / "file" / "artifacts").as_uri())


def test_a_folder_that_vanished_is_unavailable_and_no_bug(tmp_path):
    with open_artifacts((tmp_path / "a").as_uri()) as artifacts:
        sha256 = artifacts.put_bytes(b"abc")
        shutil.rmtree(tmp_path / "a")
        (tmp_path / "a").write_bytes(b"a file now")
        for use in (lambda: artifacts.put_bytes(b"x"), lambda: artifacts.read_bytes(sha256)):
            with pytest.raises(ServiceUnavailable):
                use()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/a/folder",
        "file://host/folder",
        "file:relative",
        "ftp://x/y",
        "s3://",
        "s3:///prefix",
        "s3://bucket/prefix?profile=x",
        "memory://x",
    ],
)
def test_a_place_that_is_not_ours_is_refused(url):
    with pytest.raises(InvalidSettings, match="artifacts"):
        open_artifacts(url)
