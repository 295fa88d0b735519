"""CSV, JSONL and Parquet manifests: one content, three encodings, and what can be wrong with them."""

import csv
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fulcrum.datasets.formats import load_dataset
from fulcrum.domain.errors import InvalidDataset, MissingFiles, UnknownDataset

from ..images import put_picture

ROWS = [
    {
        "id": "b", "source": "images/b.png", "label": "dog", "split": "confirm", "pair_id": "p1",
        "group_sticker": "word", "covariate_size": 0.5, "mask_path": "masks/b.png", "licence": "CC0",
        "note": "x,\ny",
    },
    {
        "id": "a", "source": "images/a.png", "label": "cat", "split": "discover", "pair_id": "p1",
        "group_sticker": "none", "covariate_size": None, "mask_path": None, "licence": None, "note": None,
    },
]  # fmt: skip


def write(path, rows):
    match path.suffix:
        case ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        case ".jsonl":
            path.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("images/a.png", "images/b.png", "masks/b.png"):
        put_picture(tmp_path / name, seed=len(name) + ord(name[-5]))
    return tmp_path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_manifest_gives_its_columns_in_order_of_the_ids(folder, suffix):
    file = write(folder / f"manifest{suffix}", ROWS)
    for path in (file, folder):
        dataset = load_dataset(path, format="manifest")
        a, b = dataset.samples
        assert (a.id, a.label, a.split, a.pair_id, a.groups) == (
            "a",
            "cat",
            "discover",
            "p1",
            {"sticker": "none"},
        )
        assert (a.covariates, a.mask_path, a.licence, a.metadata) == ({}, None, None, {})
        assert (b.covariates, b.mask_path, b.licence) == ({"size": 0.5}, "masks/b.png", "CC0")
        assert b.metadata == {"note": "x,\ny"}
        assert dataset.read_bytes(b) == (folder / "images/b.png").read_bytes()
        assert dataset.class_names == ("cat", "dog")


def test_the_digest_is_the_same_whatever_the_manifests_format(folder):
    digests = set()
    for suffix in (".csv", ".jsonl", ".parquet"):
        digests.add(load_dataset(write(folder / f"rows{suffix}", ROWS)).digest)
    assert len(digests) == 1


def test_spreadsheet_byte_order_marks_numbers_as_ids_and_the_american_spelling_are_understood(folder):
    text = "id,source,license\r\n7,images/a.png,MIT\r\n\r\n"
    (folder / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [(s.id, s.licence) for s in load_dataset(folder).samples] == [("7", "MIT")]
    write(folder / "numbers.parquet", [{"id": 7, "source": "images/a.png", "label": float("nan")}])
    assert [(s.id, s.label) for s in load_dataset(folder / "numbers.parquet").samples] == [("7", None)]


def one_row(folder, **columns):
    row = {"id": "a", "source": "images/a.png", **columns}
    return write(folder / "rows.csv", [row])


@pytest.mark.parametrize(
    "source", ["../a.png", "images/../../a.png", "/etc/hostname", "C:\\a.png", "..\\a.png", "a\0b.png", "."]
)
@pytest.mark.parametrize("column", ["source", "mask_path"])
def test_paths_that_leave_the_folder_are_refused(folder, source, column):
    with pytest.raises(InvalidDataset, match=r"rows\.jsonl line 1"):
        load_dataset(write(folder / "rows.jsonl", [{"id": "a", "source": "images/a.png", column: source}]))


def test_a_link_that_leads_outside_is_refused(folder, tmp_path_factory):
    outside = put_picture(tmp_path_factory.mktemp("outside") / "secret.png")
    os.symlink(outside, folder / "link.png")
    os.symlink(outside.parent, folder / "linked")
    os.symlink("images/a.png", folder / "inside.png")
    for source in ("link.png", "linked/secret.png"):
        with pytest.raises(InvalidDataset, match="outside"):
            load_dataset(one_row(folder, source=source))
    assert len(load_dataset(one_row(folder, source="inside.png"))) == 1


def test_missing_files_are_counted_and_the_first_are_named(folder):
    rows = [{"id": str(i), "source": f"images/{i}.png"} for i in range(20)]
    with pytest.raises(MissingFiles, match=r"20 of 20 images .* first: \['images/0.png', 'images/1.png'"):
        load_dataset(write(folder / "rows.csv", rows))
    with pytest.raises(MissingFiles, match="1 of 1 masks"):
        load_dataset(one_row(folder, mask_path="masks/none.png"))
    with pytest.raises(InvalidDataset, match="not a file"):
        load_dataset(one_row(folder, source="images"))


def test_repeated_and_blank_ids_are_refused(folder):
    rows = [{"id": i, "source": "images/a.png"} for i in ("x", "y", "x")]
    with pytest.raises(InvalidDataset, match=r"ids must differ; 1 .*\['x'\]"):
        load_dataset(write(folder / "rows.csv", rows))
    for blank in ("", "  "):
        with pytest.raises(InvalidDataset, match="'id' is empty"):
            load_dataset(one_row(folder, id=blank))


def test_a_blank_label_is_refused_and_an_empty_one_is_none(folder):
    with pytest.raises(InvalidDataset, match="line 2: the label is blank"):
        load_dataset(one_row(folder, label="  "))
    assert load_dataset(one_row(folder, label="")).samples[0].label is None


@pytest.mark.parametrize("value", ["tall", "inf", "nan"])
def test_a_covariate_that_is_no_number_is_refused(folder, value):
    with pytest.raises(InvalidDataset, match="covariate_size"):
        load_dataset(one_row(folder, covariate_size=value))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_missing_columns_are_named(folder, suffix):
    with pytest.raises(InvalidDataset, match="source"):
        load_dataset(write(folder / f"rows{suffix}", [{"id": "a", "path": "images/a.png"}]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "id,source\ncafé,images/a.png".encode("latin-1"), "not UTF-8"),
        ("rows.jsonl", b"\xff\xfe", "not UTF-8"),
        ("rows.csv", b"", "lacks the columns"),
        ("rows.csv", b"id,source\n", "empty"),
        ("rows.jsonl", b"\n\n", "empty"),
        ("rows.csv", b"id,source\na\n", "line 2: 1 cells under 2 columns"),
        ("rows.csv", b'id,source\n"a,images/a.png', "line"),
        ("rows.csv", b"id,source,label,label\na,images/a.png,x,y\n", "more than once"),
        ("rows.jsonl", b'{"id": "a"', "line 1: not JSON"),
        ("rows.jsonl", b"[1]", "expected an object"),
        ("rows.parquet", b"PAR1 and nothing else", "Parquet"),
    ],
)
def test_a_malformed_manifest_says_what_is_wrong(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(InvalidDataset, match=message):
        load_dataset(folder / name)


def test_two_manifests_in_one_folder_are_refused(folder):
    for suffix in (".csv", ".jsonl"):
        write(folder / f"manifest{suffix}", ROWS)
    with pytest.raises(InvalidDataset, match="one manifest"):
        load_dataset(folder)


def test_a_path_that_does_not_exist_or_holds_nothing_is_refused(tmp_path):
    with pytest.raises(UnknownDataset, match="does not exist"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(InvalidDataset, match="no data set that we read"):
        load_dataset(tmp_path)
    with pytest.raises(InvalidDataset, match="unknown format 'zip'"):
        load_dataset(tmp_path, format="zip")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InvalidDataset, match="no data set that we read"):
        load_dataset(tmp_path / "notes.txt")


def test_the_demo_world_is_read_with_its_groups_pairs_and_masks(tmp_path):
    from fulcrum.demo.world_dataset import write_demo_dataset

    write_demo_dataset(tmp_path, n_pairs=2, n_right=1, n_neutral=1, n_cues=1)
    dataset = load_dataset(tmp_path)
    assert dataset.split_names == ("confirm", "discover", "select")
    assert {"background", "frame", "sticker"} <= set(dataset.groups)
    assert all(s.mask_path and s.pair_id and s.label for s in dataset.samples)
    attacked = dataset.split("confirm").where(sticker="word")
    assert all(s.metadata["sticker_word"] for s in attacked.samples)
