import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from fulcrum.demo.shipped import WEIGHTS
from fulcrum.domain.errors import CorruptArtifact, UnknownArtifact, UnknownSae
from fulcrum.engine.sae_artifacts import SaeArtifacts
from fulcrum.store.artifacts import open_artifacts

FILES = ("cfg.json", "sae_weights.safetensors")


@pytest.fixture
def artifacts(tmp_path):
    return open_artifacts(f"file://{tmp_path}/artifacts")


@pytest.fixture
def source(artifacts):
    hashes = [artifacts.put_bytes((WEIGHTS / "sae" / name).read_bytes()) for name in FILES]
    return f"artifact:{hashes[0]}:{hashes[1]}"


def test_an_uploaded_sae_becomes_a_folder_that_loads(artifacts, source):
    saes = SaeArtifacts(artifacts)
    folder = saes.folder_of(source)
    for name in FILES:
        assert (folder / name).read_bytes() == (WEIGHTS / "sae" / name).read_bytes()
    saes.close()
    assert not folder.exists()
    assert artifacts.exists(source.split(":")[1])  # only our links are gone


def test_many_first_askers_get_one_folder(artifacts, source, tmp_path):
    saes = SaeArtifacts(artifacts, tmp_path / "cache")
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: saes.folder_of(source), range(16)))
    assert len(folders) == 1
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [next(iter(folders)).name]


def test_what_is_missing_or_altered_leaves_nothing_behind(artifacts, source, tmp_path):
    saes = SaeArtifacts(artifacts, tmp_path / "cache")
    _, cfg, weights = source.split(":")
    with pytest.raises(UnknownArtifact):
        saes.folder_of(f"artifact:{cfg}:{hashlib.sha256(b'other').hexdigest()}")
    stored = tmp_path / "artifacts" / weights[:2] / weights[2:4] / weights
    stored.write_bytes(b"altered")
    with pytest.raises(CorruptArtifact):
        saes.folder_of(source)
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_an_earlier_run_kept_is_checked_again(artifacts, source, tmp_path):
    cache = tmp_path / "cache"
    SaeArtifacts(artifacts, cache).folder_of(source)
    assert SaeArtifacts(artifacts, cache).folder_of(source).is_dir()
    weights = source.split(":")[2]
    (tmp_path / "artifacts" / weights[:2] / weights[2:4] / weights).write_bytes(b"altered")
    with pytest.raises(CorruptArtifact):
        SaeArtifacts(artifacts, cache).folder_of(source)


@pytest.mark.parametrize(
    "source", ["artifact:", "artifact:ab:cd", "artifact:../x:y", f"artifact:{'A' * 64}:{'b' * 64}"]
)
def test_a_malformed_name_is_refused(artifacts, source, tmp_path):
    with pytest.raises(UnknownSae, match="64 hexadecimal digits"):
        SaeArtifacts(artifacts, tmp_path / "cache").folder_of(source)
