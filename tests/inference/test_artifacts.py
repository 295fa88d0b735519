"""Images and SAEs that were uploaded: named by their hashes, fetched by the service itself."""

import hashlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tests.inference.running import MODEL, SAE, Running, png

from fulcrum.demo.shipped import WEIGHTS
from fulcrum.domain.codec import to_json
from fulcrum.domain.errors import CorruptArtifact, ImageTooLarge, UnknownArtifact, UnknownImage, UnknownSae
from fulcrum.rpc.images import ImageHash
from fulcrum.store.artifacts import open_artifacts


@pytest.fixture(scope="module")
def place():
    folder = Path(tempfile.mkdtemp(prefix="fula"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def artifacts(place):
    return open_artifacts(f"file://{place}")


@pytest.fixture(scope="module")
def running(place, artifacts):
    with Running(artifacts_url=f"file://{place}", max_image_bytes=1 << 20) as service:
        yield service


@pytest.fixture
def client(running):
    with running.client(deterministic=True) as engine:
        yield engine


@pytest.fixture(scope="module")
def uploaded(artifacts):
    hashes = [
        artifacts.put_bytes((WEIGHTS / "sae" / name).read_bytes())
        for name in ("cfg.json", "sae_weights.safetensors")
    ]
    return f"artifact:{hashes[0]}:{hashes[1]}"


def test_an_image_by_its_hash_is_the_same_as_its_bytes(client, artifacts, task):
    image = png(7)
    name = ImageHash(artifacts.put_bytes(image))
    assert to_json(client.predict(MODEL, [name], task)[0]) == to_json(client.predict(MODEL, [image], task)[0])
    by_hash, by_bytes = (client.attribute(MODEL, SAE, i, task) for i in (name, image))
    assert to_json(by_hash) == to_json(by_bytes)


def test_an_uploaded_sae_is_the_same_as_the_one_it_was_made_of(client, uploaded, task):
    info, known = client.load_sae(uploaded, MODEL), client.load_sae(SAE, MODEL)
    assert info.name == uploaded
    assert (info.weights_sha256, info.quality) == (known.weights_sha256, known.quality)
    ours, theirs = (client.encode_latents(MODEL, sae, png(1)) for sae in (uploaded, SAE))
    np.testing.assert_array_equal(ours.values, theirs.values)


def test_what_was_not_uploaded_is_unknown(client, uploaded, task):
    missing = hashlib.sha256(b"nothing").hexdigest()
    with pytest.raises(UnknownImage, match=missing):
        client.predict(MODEL, [ImageHash(missing)], task)
    with pytest.raises(UnknownArtifact):
        client.load_sae(f"artifact:{uploaded.split(':')[1]}:{missing}", MODEL)


def test_an_image_beyond_the_limit_is_refused_sent_or_stored(client, artifacts, task):
    large = png(1) + b"\0" * (1 << 20)
    for image in (large, ImageHash(artifacts.put_bytes(large))):
        with pytest.raises(ImageTooLarge):
            client.predict(MODEL, [image], task)


def test_altered_bytes_of_an_image_are_never_shown(client, artifacts, place, task):
    name = artifacts.put_bytes(png(8))
    stored = place / name[:2] / name[2:4] / name
    stored.write_bytes(png(9))
    with pytest.raises(CorruptArtifact):
        client.predict(MODEL, [ImageHash(name)], task)


def test_an_uploaded_file_that_is_no_sae_is_an_error_without_our_paths(client, artifacts):
    hashes = [artifacts.put_bytes(b"{}"), artifacts.put_bytes(b"no tensors")]
    source = f"artifact:{hashes[0]}:{hashes[1]}"
    with pytest.raises(Exception, match=r"cfg|safetensors|SAE") as raised:
        client.load_sae(source, MODEL)
    assert tempfile.gettempdir() not in str(raised.value)
    assert raised.value.reason != "INTERNAL_ERROR"


def test_without_an_artifact_store_bytes_are_asked_for(remote, task):
    name = hashlib.sha256(b"x").hexdigest()
    with pytest.raises(UnknownImage, match="send the bytes"):
        remote.predict(MODEL, [ImageHash(name)], task)
    with pytest.raises(UnknownSae, match="no artifact store"):
        remote.load_sae(f"artifact:{name}:{name}", MODEL)
