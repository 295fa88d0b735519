"""Archives of strangers: what comes out of honest ones, and what hostile ones are told."""

import contextlib
import gzip
import io
import os
import random
import struct
import tarfile
import zipfile
import zlib

import pytest
from tests.datasets.images import encoded, picture

from fulcrum.client.packing import FolderBody
from fulcrum.datasets.archives import ArchiveLimits, content_root, is_webdataset_shard, unpack
from fulcrum.domain.errors import InvalidDataset, InvalidRequest, PayloadTooLarge

PNG = encoded(picture(1))
FILES = {"a/1.png": PNG, "a/2.png": encoded(picture(2)), "b/3.png": encoded(picture(3)), "labels.csv": b"x\n"}


def zipped(files, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files, mode="w", **options):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, **options) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def with_member(**fields):
    """A tar with one honest file and one member as `TarInfo` describes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        honest = tarfile.TarInfo("a/1.png")
        honest.size = len(PNG)
        archive.addfile(honest, io.BytesIO(PNG))
        info = tarfile.TarInfo(fields.pop("name", "a/2.png"))
        for name, value in fields.items():
            setattr(info, name, value)
        archive.addfile(info, io.BytesIO(b"\0" * info.size))
    return out.getvalue()


def entry(name, mode, content=b"target"):
    """A zip with an entry of a Unix mode."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.create_system = 3
        archive.writestr(info, content)
    return out.getvalue()


@pytest.fixture
def opened(tmp_path):
    """`opened(bytes, ...)`: what comes out, name to content; nothing may lie beside the folder."""

    def run(content, **limits):
        archive, folder = tmp_path / "archive", tmp_path / "out"
        archive.write_bytes(content)
        folder.mkdir()
        try:
            unpack(archive, folder, limits=ArchiveLimits(**limits))
        finally:
            assert sorted(p.name for p in tmp_path.iterdir()) == ["archive", "out"]
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    return run


@pytest.mark.parametrize(
    "archive",
    [
        zipped(FILES),
        zipped(FILES, zipfile.ZIP_STORED),
        tarred(FILES),
        tarred(FILES, "w:gz"),
        tarred({f"./{n}": c for n, c in FILES.items()}, format=tarfile.GNU_FORMAT),
        tarred(FILES, format=tarfile.USTAR_FORMAT),
    ],
    ids=["zip", "stored zip", "tar", "tar.gz", "gnu", "ustar"],
)
def test_files_come_out_as_they_went_in(opened, archive):
    assert opened(archive) == FILES


@pytest.mark.parametrize("make", [zipped, tarred, lambda f: tarred(f, format=tarfile.GNU_FORMAT)])
def test_long_and_foreign_names_come_out_and_other_files_do_not(opened, make):
    long = "/".join(["ä" * 40] * 5) + "/ü.png"
    files = {long: PNG, ".hidden/1.png": PNG, "__MACOSX/a/._1.png": PNG, "read.me": b"x", "run.sh": b"x"}
    assert opened(make(files)) == {long: PNG}


def test_a_folder_that_the_sdk_packs_comes_out_again_and_is_always_the_same(opened, tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    for name, content in FILES.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(content)
    (source / ".secret").write_bytes(b"x")
    (source / "b" / "4.png").symlink_to(source / "a" / "1.png")
    packed = b"".join(FolderBody(source).chunks())
    os.utime(source / "a" / "1.png", (1, 1))
    assert b"".join(FolderBody(source).chunks()) == packed
    assert opened(packed) == FILES | {"b/4.png": PNG}
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert sorted(tar.getnames()) == sorted([*FILES, "b/4.png"])


def test_the_sdk_refuses_to_pack_what_has_no_images(tmp_path):
    with pytest.raises(InvalidRequest, match="no image"):
        list(FolderBody(tmp_path).chunks())
    (tmp_path / "loop").symlink_to(tmp_path)
    with pytest.raises(InvalidRequest, match="link to a folder"):
        list(FolderBody(tmp_path).chunks())


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["../1.png", "a/../../1.png", "/etc/1.png", "C:\\1.png", "a\\..\\..\\1.png"])
def test_names_that_lead_elsewhere_are_refused(opened, make, name):
    with pytest.raises(InvalidDataset, match=r"leaves|absolute"):
        opened(make({"a/0.png": PNG, name: PNG}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "is a link"),
        ({"type": tarfile.LNKTYPE, "linkname": "a/1.png"}, "is a link"),
        ({"type": tarfile.CHRTYPE}, "is a device"),
        ({"type": tarfile.FIFOTYPE}, "is a device"),
        ({"name": "a/1.png"}, "twice"),
        ({"name": "a/1.png/2.png"}, "a file and a folder"),
        ({"name": "a/x.zip"}, "another one, 'a/x.zip'"),
        ({"name": "a/x.tar.gz"}, "archives in archives"),
        ({"name": "a/\x07.png"}, "control characters"),
        ({"name": "a/" * 40 + "1.png"}, "41 folders|in 41"),
        ({"name": "a/" + "x" * 1500 + ".png"}, "at most 1000"),
    ],
)
def test_a_tar_with_more_than_plain_files_is_refused(opened, fields, words):
    with pytest.raises(InvalidDataset, match=words):
        opened(with_member(**fields))


@pytest.mark.parametrize(
    ("mode", "words"), [(0o120777, "is a link"), (0o020666, "is a device"), (0o010666, "is a device")]
)
def test_a_zip_with_more_than_plain_files_is_refused(opened, mode, words):
    with pytest.raises(InvalidDataset, match=words):
        opened(entry("a/1.png", mode))


def test_a_name_that_is_no_text_is_refused(opened):
    with pytest.raises(InvalidDataset, match="not UTF-8"):
        opened(tarred({"a\udcff.png": PNG}, errors="surrogateescape", format=tarfile.GNU_FORMAT))


@pytest.mark.parametrize("make", [zipped, lambda f: gzip.compress(tarred(f))], ids=["zip", "gz"])
def test_bombs_are_noticed_while_they_unpack(opened, tmp_path, make):
    archive = make({"a.png": bytes(40 << 20)})
    assert len(archive) < 100_000
    with pytest.raises(PayloadTooLarge, match="unpacks to more than"):
        opened(archive, ratio_from_bytes=1 << 20)
    assert (tmp_path / "out" / "a.png").stat().st_size <= 20 << 20


def test_what_lies_about_its_size_is_refused(opened):
    # The header of a zip's entry says 10 bytes where 1 MB comes out.
    content = bytearray(zipped({"a.png": bytes(1 << 20)}))
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = content.find(mark) + at
        content[start : start + 4] = struct.pack("<I", 10)
    with pytest.raises(InvalidDataset, match="damaged"):
        opened(bytes(content))


def test_a_header_of_gigabytes_is_not_read_into_memory(opened):
    # A PAX record that states 3 GB, in a gzip of some kilobytes.
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 3 << 30
    head = info.tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(InvalidDataset, match="a header of 3221225472 bytes"):
        opened(gzip.compress(head + bytes(1 << 20)))


@pytest.mark.parametrize("make", [zipped, tarred])
def test_too_many_files_are_refused(opened, make):
    files = {f"a/{i}.png": b"" for i in range(60)}
    with pytest.raises(PayloadTooLarge, match="more than 50 files"):
        opened(make(files), max_files=50)


def test_a_directory_of_a_million_files_is_refused_before_it_is_read(opened):
    content = zipped({f"a/{i}.png": b"" for i in range(3000)})
    with pytest.raises(PayloadTooLarge, match=r"a directory of \d+ bytes"):
        opened(content, max_files=100)


def test_too_many_bytes_are_refused(opened):
    with pytest.raises(PayloadTooLarge, match="to more than 500 bytes"):
        opened(tarred({"a.png": bytes(400), "b.png": bytes(400)}), max_bytes=500)


def test_one_file_of_too_many_bytes_is_refused(opened):
    with pytest.raises(PayloadTooLarge, match=r"'a.png' has more than 100 bytes"):
        opened(zipped({"a.png": random.Random(0).randbytes(101)}), max_file_bytes=100)


def test_encryption_and_rare_compression_are_refused(opened):
    content = bytearray(zipped({"a.png": PNG}))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(mark) + at] |= 1
    with pytest.raises(InvalidDataset, match="encrypted"):
        opened(bytes(content))


def test_lzma_is_refused(opened):
    with pytest.raises(InvalidDataset, match="compressed by method 14"):
        opened(zipped({"a.png": PNG}, zipfile.ZIP_LZMA))


@pytest.mark.parametrize("archive", [zipped(FILES), tarred(FILES), tarred(FILES, "w:gz")])
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.9])
def test_a_truncated_archive_is_refused(opened, archive, keep):
    with pytest.raises(InvalidDataset):
        opened(archive[: int(len(archive.rstrip(b"\0")) * keep)])


def test_a_tar_that_ends_between_two_files_is_refused(opened):
    whole = tarred({"a/1.png": bytes(512), "a/2.png": bytes(512)})
    with pytest.raises(InvalidDataset, match="cut off"):
        opened(whole[:1024])


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"\x1f\x8b", b"hello", PNG, b"PK\x05\x06" + bytes(18), bytes(10240), zlib.compress(PNG)],
)
def test_what_is_no_archive_or_an_empty_one_is_refused(opened, content):
    with pytest.raises(InvalidDataset):
        opened(content)


@pytest.mark.parametrize(
    "whole", [zipped(FILES), tarred(FILES), tarred(FILES, "w:gz")], ids=["zip", "tar", "gz"]
)
def test_damaged_bytes_give_files_or_words(tmp_path, whole):
    rng = random.Random(0)
    for n in range(150):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        archive, folder = tmp_path / f"{n}.bin", tmp_path / str(n)
        archive.write_bytes(content)
        folder.mkdir()
        with contextlib.suppress(InvalidDataset, PayloadTooLarge):  # anything else fails the test
            unpack(archive, folder)


def test_one_folder_around_everything_means_nothing_unless_it_is_a_split(tmp_path):
    (tmp_path / "one" / "shops" / "a").mkdir(parents=True)
    (tmp_path / "one" / ".DS_Store").touch()
    assert content_root(tmp_path / "one", frozenset({"train"})).name == "shops"
    (tmp_path / "two" / "train" / "a").mkdir(parents=True)
    assert content_root(tmp_path / "two", frozenset({"train"})).name == "two"
    (tmp_path / "three" / "a").mkdir(parents=True)
    (tmp_path / "three" / "b").mkdir(parents=True)
    assert content_root(tmp_path / "three", frozenset()).name == "three"


def test_a_shard_of_a_webdataset_is_told_from_a_folder_in_a_tar(tmp_path):
    archive = tmp_path / "x"
    for files, expected in (
        ({"000.png": PNG, "000.cls": b"1"}, True),
        ({"000.json": b"{}", "000.png": PNG}, True),
        ({"a/1.png": PNG, "a/2.png": PNG, "labels.json": b"{}"}, False),
        (FILES, False),
    ):
        archive.write_bytes(tarred(files))
        assert is_webdataset_shard(archive) == expected
    archive.write_bytes(zipped(FILES))
    assert not is_webdataset_shard(archive)
