"""Data sets as artifacts: a manifest that reads no image."""

import pytest
from tests.datasets.images import put_picture

from fulcrum.datasets.formats import load_dataset
from fulcrum.datasets.stored import read_manifest, write_manifest
from fulcrum.domain.errors import CorruptArtifact


@pytest.fixture
def dataset(tmp_path):
    rows = ["id,source,label,split,group_sticker,covariate_size,pair_id"]
    for i in range(6):
        put_picture(tmp_path / f"{i}.png", seed=i)
        rows.append(
            f"n{i},{i}.png,{'ab'[i % 2]},{['discover', 'confirm'][i % 2]},{'yes' if i < 3 else ''},{i},p{i // 2}"
        )
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return load_dataset(tmp_path / "manifest.csv", name="letters")


def test_what_is_read_is_what_was_written_and_needs_no_image(dataset):
    kept = {
        sha256: dataset.read_bytes(s) for s, sha256 in zip(dataset.samples, dataset.bytes_sha256, strict=True)
    }
    asked = []

    def read(sha256):
        asked.append(sha256)
        return kept[sha256]

    stored = read_manifest(write_manifest(dataset), "letters", read)
    assert stored.digest == dataset.digest
    assert stored.bytes_sha256 == dataset.bytes_sha256
    assert stored.class_names == dataset.class_names
    for ours, theirs in zip(stored.samples, dataset.samples, strict=True):
        assert (ours.id, ours.label, ours.split, ours.pair_id) == (
            theirs.id,
            theirs.label,
            theirs.split,
            theirs.pair_id,
        )
        assert (ours.groups, ours.covariates, ours.metadata) == (
            theirs.groups,
            theirs.covariates,
            theirs.metadata,
        )
    assert asked == []
    assert stored.read_bytes(stored.samples[0]) == dataset.read_bytes(dataset.samples[0])
    assert asked == [dataset.bytes_sha256[0]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]\n",
        b'{"version": 3, "class_names": []}\n',
        b'{"version": 1, "class_names": []}\n{"no": 1}\n',
        b"\xff",
    ],
)
def test_a_manifest_that_is_none_is_said_to_be_corrupt(content):
    with pytest.raises(CorruptArtifact, match="manifest of the data set 'letters'"):
        read_manifest(content, "letters", lambda sha256: b"")
