"""Tar shards: what is read, and what a hostile archive may not do."""

import io
import json
import tarfile

import pytest

from fulcrum.datasets.formats import load_dataset
from fulcrum.domain.errors import InvalidDataset, MissingFiles

from ..images import encoded, picture


def write_shard(path, members):
    """Members in order: name -> bytes or a TarInfo of another kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_shards_give_images_labels_and_columns(tmp_path):
    folder = tarfile.TarInfo("./")
    folder.type = tarfile.DIRTYPE
    columns = {"group_sticker": "word", "pair_id": "p", "text": {"a": 1}, "split": "confirm"}
    write_shard(
        tmp_path / "set-train-000.tar",
        {
            "./": folder,
            "000.jpg": encoded(picture(0), "JPEG"),
            "000.cls": b"1\n",
            "000.txt": b"a photo of a dog",
            "sub/001.png": encoded(picture(1)),
            "sub/001.cls": b"0",
            "sub/001.json": json.dumps(columns).encode(),
            "sub/001.npy": b"\0" * 100,
        },
    )
    write_shard(tmp_path / "set-train-001.tar", {"000.webp": encoded(picture(2), "WEBP"), "readme": b"x"})
    (tmp_path / "classnames.txt").write_text("cat\ndog\nfox\n")
    dataset = load_dataset(tmp_path)
    first, second, third = dataset.samples
    assert [s.id for s in dataset.samples] == [
        "set-train-000/000",
        "set-train-000/sub/001",
        "set-train-001/000",
    ]
    assert (first.label, first.split, first.metadata) == ("dog", "train", {"caption": "a photo of a dog"})
    assert (second.label, second.split, second.groups, second.pair_id) == (
        "cat",
        "confirm",
        {"sticker": "word"},
        "p",
    )
    assert (third.label, third.split) == (None, "train")
    assert dataset.class_names == ("cat", "dog", "fox")
    assert dataset.read_bytes(first) == encoded(picture(0), "JPEG")
    assert dataset.read_bytes(second) == encoded(picture(1))
    assert dataset.hashes.byte_source.stamp(second.source)[0] == len(encoded(picture(1)))


def test_one_tar_file_and_split_folders_are_data_sets_too(tmp_path):
    for split in ("train", "val"):
        write_shard(tmp_path / split / "000.tar", {"0.png": encoded(picture(0)), "0.cls": b"dog"})
    dataset = load_dataset(tmp_path)
    assert [(s.id, s.label, s.split) for s in dataset.samples] == [
        ("train/000/0", "dog", "train"),
        ("val/000/0", "dog", "val"),
    ]
    single = load_dataset(tmp_path / "val" / "000.tar")
    assert single.samples[0].label == "dog"
    assert single.name == "000"


def link(name, kind, target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../0.png": b"x"}, "leaves"),
        ({"a/../../0.png": b"x"}, "leaves"),
        ({"/0.png": b"x"}, "absolute"),
        ({"0.png": link("0.png", tarfile.SYMTYPE)}, "link, device or sparse"),
        ({"0.png": link("0.png", tarfile.LNKTYPE, "1.png")}, "link, device or sparse"),
        ({"0.png": link("0.png", tarfile.CHRTYPE)}, "link, device or sparse"),
        ({"0.png": link("0.png", tarfile.FIFOTYPE)}, "link, device or sparse"),
        ({"0.png": b"x", "0.json": b" " * (2 << 20)}, "the limit is"),
        ({"0.png": b"x", "0.json": b"[]"}, "must hold an object"),
        ({"0.png": b"x", "0.json": b"{"}, "no JSON"),
        ({"0.png": b"x", "0.cls": b"\xff"}, "not UTF-8"),
        ({"0.png": b"x", "0.jpg": b"x"}, "several images"),
        ({"readme.txt": b"x"}, "empty"),
    ],
)
def test_a_hostile_or_malformed_shard_is_refused(tmp_path, members, message):
    write_shard(tmp_path / "0.tar", members)
    with pytest.raises(InvalidDataset, match=message):
        load_dataset(tmp_path)


def test_a_sparse_member_is_refused(tmp_path):
    # A member of a few bytes that claims to be a terabyte, as GNU tar writes it.
    info = tarfile.TarInfo("0.png")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "0.png",
                        "GNU.sparse.realsize": str(1 << 40)}  # fmt: skip
    body = b"1\n0\n1\n".ljust(512, b"\0") + b"x"
    info.size = len(body)
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(body))
    with pytest.raises(InvalidDataset, match="sparse"):
        load_dataset(tmp_path)


def test_compressed_and_truncated_shards_are_refused(tmp_path):
    whole = write_shard(tmp_path / "whole.tar", {"0.png": encoded(picture(0)), "1.png": encoded(picture(1))})
    content = whole.read_bytes()
    (tmp_path / "a").mkdir()
    with tarfile.open(tmp_path / "a" / "0.tar", "w:gz") as tar:
        tar.add(whole, "0.png")
    with pytest.raises(InvalidDataset, match="uncompressed"):
        load_dataset(tmp_path / "a")
    for keep in (700, 100):
        (tmp_path / "cut.tar").write_bytes(content[:keep])
        with pytest.raises(InvalidDataset, match=r"truncated|complete"):
            load_dataset(tmp_path / "cut.tar")


def test_class_numbers_beyond_the_names_are_refused(tmp_path):
    write_shard(tmp_path / "0.tar", {"0.png": b"x", "0.cls": b"2"})
    (tmp_path / "classes.txt").write_text("cat\ndog")
    with pytest.raises(InvalidDataset, match="class 2 of 2"):
        load_dataset(tmp_path)


def test_a_shard_that_shrank_or_vanished_after_import_is_noticed(tmp_path):
    shard = write_shard(tmp_path / "0.tar", {"0.png": encoded(picture(0))})
    dataset = load_dataset(tmp_path)
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(InvalidDataset, match="shorter"):
        dataset.read_bytes(dataset.samples[0])
    shard.unlink()
    with pytest.raises(MissingFiles):
        dataset.read_bytes(dataset.samples[0])
