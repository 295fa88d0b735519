"""ImageFolder, labels in file names, and folders without labels."""

import os

import pytest

from fulcrum.datasets.formats import detect_format, load_dataset
from fulcrum.domain.errors import InvalidDataset, MissingFiles

from ..images import put_picture


def table(dataset):
    return [(s.source, s.label, s.split) for s in dataset.samples]


def test_class_folders_give_labels(tmp_path):
    for name in ("dog/1.JPG", "dog/deep/2.png", "cat/1.webp"):
        put_picture(tmp_path / name)
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    put_picture(tmp_path / "__MACOSX" / "dog" / "._1.png")
    put_picture(tmp_path / ".cache" / "x.png")
    dataset = load_dataset(tmp_path)
    assert table(dataset) == [
        ("cat/1.webp", "cat", None),
        ("dog/1.JPG", "dog", None),
        ("dog/deep/2.png", "dog", None),
    ]
    assert dataset.class_names == ("cat", "dog")
    assert dataset.ids.tolist()[0] == "cat/1.webp"


@pytest.mark.parametrize("splits", [("train", "val"), ("discover", "select", "confirm"), ("test",)])
def test_split_folders_give_splits(tmp_path, splits):
    for split in splits:
        put_picture(tmp_path / split / "dog" / "1.png")
        put_picture(tmp_path / split / "cat" / "1.png")
    dataset = load_dataset(tmp_path)
    assert table(dataset) == sorted(
        (f"{s}/{label}/1.png", label, s) for s in splits for label in ("cat", "dog")
    )


def test_a_class_called_train_among_others_is_a_class(tmp_path):
    for label in ("train", "truck"):
        put_picture(tmp_path / label / "1.png")
    assert load_dataset(tmp_path).class_names == ("train", "truck")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_metadata_adds_and_overrides_columns(tmp_path, suffix):
    for name in ("dog/1.png", "dog/2.png", "cat/3.png", "cat/3-mask.png"):
        put_picture(tmp_path / name)
    rows = {
        "csv": (
            "file_name,label,group_sticker,mask_path,artist\ndog/1.png,wolf,word,,me\ncat/3.png,,none,cat/3-mask.png,\n"
        ),
        "jsonl": (
            '{"file_name": "dog/1.png", "label": "wolf", "group_sticker": "word", "artist": "me"}\n'
            '{"file_name": "cat/3.png", "group_sticker": "none", "mask_path": "cat/3-mask.png"}'
        ),
    }
    (tmp_path / f"metadata.{suffix}").write_text(rows[suffix])
    dataset = load_dataset(tmp_path)
    cat, wolf, dog = dataset.samples
    assert (wolf.label, wolf.groups, wolf.metadata) == ("wolf", {"sticker": "word"}, {"artist": "me"})
    assert (cat.label, cat.mask_path) == ("cat", "cat/3-mask.png")
    assert (dog.label, dog.groups) == ("dog", {})


def test_metadata_in_a_split_folder_is_relative_to_it(tmp_path):
    for name in ("train/1.png", "train/m/1.png", "test/2.png"):
        put_picture(tmp_path / name)
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label,mask_path\n1.png,dog,m/1.png\n")
    dataset = load_dataset(tmp_path)
    assert table(dataset) == [("test/2.png", None, "test"), ("train/1.png", "dog", "train")]
    assert dataset.samples[1].mask_path == "train/m/1.png"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("file_name\ndog/9.png\n", MissingFiles, "1 of 2 images"),
        ("file_name\n../x.png\n", InvalidDataset, "leaves"),
        ("file_name\ndog/1.png\ndog/1.png\n", InvalidDataset, "a row already"),
        ("image\ndog/1.png\n", InvalidDataset, "file_name"),
        ("file_name,label\ndog/1.png,  \n", InvalidDataset, "blank"),
    ],
)
def test_wrong_metadata_is_refused(tmp_path, text, error, message):
    put_picture(tmp_path / "dog" / "1.png")
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(error, match=message):
        load_dataset(tmp_path)


def test_links_to_folders_and_out_of_the_folder_are_refused(tmp_path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    put_picture(outside / "secret.png")
    put_picture(tmp_path / "a" / "dog" / "1.png")
    os.symlink(outside, tmp_path / "a" / "cat")
    with pytest.raises(InvalidDataset, match="link to a folder"):
        load_dataset(tmp_path / "a", format="image_folder")
    put_picture(tmp_path / "b" / "dog" / "1.png")
    os.symlink(outside / "secret.png", tmp_path / "b" / "dog" / "2.png")
    with pytest.raises(InvalidDataset, match="outside"):
        load_dataset(tmp_path / "b")


def test_labels_are_read_from_file_names(tmp_path):
    names = [
        "label=dog_text=cat.png",
        "label=fire_truck_text=stop_sign.jpg",
        "label=dog_group_sticker=word_pair_id=p7_split=confirm_covariate_size=0.25.webp",
    ]
    for name in names:
        put_picture(tmp_path / name)
    assert detect_format(tmp_path) == "file_names"
    by_id = {s.id: s for s in load_dataset(tmp_path).samples}
    assert (by_id[names[0]].label, by_id[names[0]].metadata) == ("dog", {"text": "cat"})
    assert (by_id[names[1]].label, by_id[names[1]].metadata) == ("fire_truck", {"text": "stop_sign"})
    full = by_id[names[2]]
    assert (full.groups, full.pair_id, full.split) == ({"sticker": "word"}, "p7", "confirm")
    assert full.covariates == {"size": 0.25}


def test_file_names_of_another_shape_are_refused(tmp_path):
    put_picture(tmp_path / "label=dog_label=cat.png")
    with pytest.raises(InvalidDataset, match="twice"):
        load_dataset(tmp_path)
    put_picture(tmp_path / "dog.png")
    with pytest.raises(InvalidDataset, match="not named like"):
        load_dataset(tmp_path, format="file_names")
    assert detect_format(tmp_path) == "unlabelled"


def test_a_plain_folder_is_a_data_set_without_labels(tmp_path):
    put_picture(tmp_path / "1.png")
    put_picture(tmp_path / "2.jpg")
    dataset = load_dataset(tmp_path)
    assert table(dataset) == [("1.png", None, None), ("2.jpg", None, None)]
    assert dataset.class_names == ()
    assert dataset.name == tmp_path.name
