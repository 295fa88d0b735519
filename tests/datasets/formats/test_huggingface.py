"""Hugging Face data sets on disk, written by hand and by their own library."""

import json

import pyarrow as pa
import pytest

from fulcrum.datasets.formats import load_dataset
from fulcrum.domain.errors import InvalidDataset, MissingFiles

from ..images import encoded, picture, put_picture

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["cat", "dog", "fox"], "_type": "ClassLabel"},
    "group_sticker": {"dtype": "string", "_type": "Value"},
    "score": {"dtype": "float64", "_type": "Value"},
    "tags": [{"dtype": "string", "_type": "Value"}],
}


def table(start, n=3):
    return pa.table(
        {
            "image": pa.array(
                [{"bytes": encoded(picture(start + i)), "path": f"{i}.png"} for i in range(n)], IMAGE
            ),
            "label": pa.array([(start + i) % 3 for i in range(n)], pa.int64()),
            "group_sticker": ["word"] * n,
            "score": [0.5] * n,
            "tags": pa.array([["a", "b"]] * n),
        }
    )


def save(folder, tables, features=FEATURES, **state):
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{i:05d}-of-{len(tables):05d}.arrow" for i in range(len(tables))]
    for name, content in zip(names, tables, strict=True):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, content.schema) as writer:
            writer.write_table(content, max_chunksize=2)
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    content = {"_data_files": [{"filename": n} for n in names], "_split": "train", **state}
    (folder / "state.json").write_text(json.dumps(content))
    return folder


def test_rows_give_images_class_names_and_columns(tmp_path):
    dataset = load_dataset(save(tmp_path / "set", [table(0), table(3, 2)]))
    assert dataset.class_names == ("cat", "dog", "fox")
    assert [s.label for s in dataset.samples] == ["cat", "dog", "fox", "cat", "dog"]
    assert dataset.ids.tolist()[3] == "train/000000003"
    assert dataset.split_names == ("train",)
    assert [dataset.read_bytes(s) for s in dataset.samples] == [encoded(picture(i)) for i in range(5)]
    assert dataset.samples[4].groups == {"sticker": "word"}
    assert dataset.samples[4].metadata == {"score": "0.5"}
    assert dataset.hashes.byte_source.stamp(dataset.samples[4].source)[0] == len(encoded(picture(4)))


def test_a_dictionary_of_splits_is_one_data_set(tmp_path):
    save(tmp_path / "train", [table(0)])
    save(tmp_path / "test", [table(3)], _split="other")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    dataset = load_dataset(tmp_path)
    assert dataset.split_names == ("test", "train")
    assert len(dataset.split("test")) == 3
    assert dataset.read_bytes(dataset.split("test").samples[2]) == encoded(picture(5))


def test_the_cache_layout_takes_splits_from_the_file_names(tmp_path):
    save(tmp_path, [table(0)])
    (tmp_path / "data-00000-of-00001.arrow").rename(tmp_path / "beans-validation-00000-of-00001.arrow")
    (tmp_path / "state.json").unlink()
    assert load_dataset(tmp_path).split_names == ("validation",)


def test_arrow_files_with_a_footer_are_read_too(tmp_path):
    save(tmp_path, [table(0)])
    name = str(tmp_path / "data-00000-of-00001.arrow")
    with pa.OSFile(name, "wb") as file, pa.ipc.new_file(file, table(0).schema) as writer:
        writer.write_table(table(0))
    assert len(load_dataset(tmp_path)) == 3


def test_the_library_itself_writes_what_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "pair_id": datasets.Value("string"),
        }
    )
    rows = {
        "image": [{"bytes": encoded(picture(i)), "path": None} for i in range(4)],
        "label": [0, 1, -1, 1],
        "pair_id": ["p", "p", "q", "q"],
    }
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": made, "test": made.select([2, 0])}).save_to_disk(str(tmp_path / "set"))
    dataset = load_dataset(tmp_path / "set")
    assert dataset.class_names == ("cat", "dog")
    train, test = dataset.split("train"), dataset.split("test")
    assert [s.label for s in train.samples] == ["cat", "dog", None, "dog"]
    assert [s.pair_id for s in test.samples] == ["q", "p"]
    assert test.read_bytes(test.samples[0]) == encoded(picture(2))


def test_images_stored_by_path_are_read_from_inside_the_folder_only(tmp_path):
    def by_path(path):
        return pa.table({"image": pa.array([{"bytes": None, "path": path}], IMAGE)})

    features = {"image": {"_type": "Image"}}
    put_picture(tmp_path / "ok" / "images" / "1.png", 1)
    dataset = load_dataset(save(tmp_path / "ok", [by_path("images/1.png")], features))
    assert dataset.read_bytes(dataset.samples[0]) == encoded(picture(1))
    for n, path in enumerate(["../x.png", "/etc/hostname", "state.json", "", None]):
        with pytest.raises(InvalidDataset, match="row 0"):
            load_dataset(save(tmp_path / f"bad{n}", [by_path(path)], features))
    with pytest.raises(MissingFiles):
        load_dataset(save(tmp_path / "gone", [by_path("images/9.png")], features))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_data_files": [{"filename": "../x.arrow"}]}, "plain names"),
        ({"_data_files": "x"}, "plain names"),
        ({"_indices_data_files": [{"filename": "i.arrow"}]}, "not flattened"),
    ],
)
def test_a_state_that_cannot_be_followed_is_refused(tmp_path, state, message):
    with pytest.raises(InvalidDataset, match=message):
        load_dataset(save(tmp_path, [table(0)], **state))


def test_splits_that_leave_the_folder_are_refused(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["../train"]}')
    with pytest.raises(InvalidDataset, match="plain names"):
        load_dataset(tmp_path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(MissingFiles, match="train"):
        load_dataset(tmp_path)


def test_damaged_files_are_refused(tmp_path):
    folder = save(tmp_path, [table(0)])
    file = folder / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\xff" * 100):
        file.write_bytes(content)
        with pytest.raises(InvalidDataset):
            load_dataset(folder)
    file.unlink()
    with pytest.raises(MissingFiles):
        load_dataset(save(tmp_path, [table(0)], _data_files=[{"filename": "gone.arrow"}]))


def test_compressed_arrow_is_refused(tmp_path):
    folder = save(tmp_path, [table(0)])
    content = pa.table({"image": pa.array([{"bytes": b"\0" * 1_000_000, "path": None}], IMAGE)})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    name = str(folder / "data-00000-of-00001.arrow")
    with pa.OSFile(name, "wb") as file, pa.ipc.new_stream(file, content.schema, options=options) as writer:
        writer.write_table(content)
    with pytest.raises(InvalidDataset, match="compressed"):
        load_dataset(folder)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"label": {"_type": "Value"}}, "no Image feature"),
        (None, "no features"),
        ({"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat"]}}, "class 1 of 1"),
        ({"score": {"_type": "Image"}}, "struct of bytes and path"),
    ],
)
def test_features_that_do_not_fit_are_refused(tmp_path, features, message):
    with pytest.raises(InvalidDataset, match=message):
        load_dataset(save(tmp_path, [table(0)], features))
