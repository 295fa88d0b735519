"""Detection exports: every box becomes a crop."""

import json

import numpy as np
import pytest

from fulcrum.datasets.formats import detect_format, load_dataset
from fulcrum.datasets.hygiene import assign_splits, decode_image
from fulcrum.domain.errors import InvalidDataset, MissingFiles

from ..images import picture, put_picture

COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 48, "height": 40}, {"id": 2, "file_name": "b.png"}],
    "categories": [{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}],
    "annotations": [
        {"id": 10, "image_id": 1, "category_id": 3, "bbox": [4, 5, 12, 10], "iscrowd": 0},
        {"id": 11, "image_id": 1, "category_id": 7, "bbox": [30.5, 20.5, 100, 100]},
        {"id": 12, "image_id": 2, "category_id": 7, "bbox": [0, 0, 48, 40]},
        {"id": 13, "image_id": 2, "category_id": 7, "bbox": [0, 0, 48, 40], "iscrowd": 1},
        {"id": 14, "image_id": 2, "category_id": 7, "bbox": [3, 3, 0, 7]},
    ],
}


def put_coco(folder, labels="labels.json", images="data/", content=COCO):
    put_picture(folder / images / "a.png", 0)
    put_picture(folder / images / "b.png", 1)
    (folder / labels).parent.mkdir(parents=True, exist_ok=True)
    (folder / labels).write_text(json.dumps(content))
    return folder


def test_boxes_become_labelled_crops(tmp_path):
    dataset = load_dataset(put_coco(tmp_path))
    assert detect_format(tmp_path) == "coco"
    assert [(s.id, s.label) for s in dataset.samples] == [
        ("data/a.png#10", "dog"),
        ("data/a.png#11", "cat"),
        ("data/b.png#12", "cat"),
    ]
    assert dataset.class_names == ("dog", "cat")
    assert dataset.samples[0].covariates == {"box_share": pytest.approx(120 / (48 * 40))}
    crops = [decode_image(dataset.read_bytes(s)).pixels for s in dataset.samples]
    np.testing.assert_array_equal(crops[0], picture(0)[5:15, 4:16])
    np.testing.assert_array_equal(crops[1], picture(0)[20:, 30:])  # widened to whole pixels, clipped
    np.testing.assert_array_equal(crops[2], picture(1))
    assert len(dataset.digest) == 64


@pytest.mark.parametrize(
    ("labels", "images", "split"),
    [
        ("annotations/instances_val2017.json", "val2017/", "val"),
        ("annotations/instances_train.json", "images/train/", "train"),
        ("train/_annotations.coco.json", "train/", "train"),
    ],
)
def test_the_usual_layouts_give_the_split(tmp_path, labels, images, split):
    dataset = load_dataset(put_coco(tmp_path, labels, images))
    assert {s.split for s in dataset.samples} == {split}
    assert len(dataset) == 3


def test_crops_of_one_image_stay_in_one_split(tmp_path):
    content = {**COCO, "annotations": [
        {"id": n, "image_id": 1 + n % 2, "category_id": 3, "bbox": [n, n, 9, 9]} for n in range(12)
    ]}  # fmt: skip
    dataset = load_dataset(put_coco(tmp_path, content=content))
    split = assign_splits(dataset, {"discover": 0.5, "confirm": 0.5}, clusters=np.arange(12))
    by_image = {s.metadata["parent_image"]: set() for s in split.samples}
    for sample in split.samples:
        by_image[sample.metadata["parent_image"]].add(sample.split)
    assert [len(splits) for splits in by_image.values()] == [1, 1]
    assert split.split_names == ("confirm", "discover")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"annotations": [{"id": 1, "bbox": [1, 1, 1, 1]}]}, InvalidDataset, "annotation 0"),
        (
            {"annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2]}]},
            InvalidDataset,
            "bbox",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, -4, 1]}]},
            InvalidDataset,
            "area",
        ),
        ({"images": [{"id": 1, "file_name": "../a.png"}]}, InvalidDataset, "leaves"),
        ({"images": [{"id": 1}]}, InvalidDataset, "file_name|empty"),
        (
            {"categories": [{"id": 3, "name": "x"}, {"id": 3, "name": "y"}]},
            InvalidDataset,
            "ids of 'categories'",
        ),
        (
            {"images": [{"id": 1, "file_name": "z.png"}, {"id": 2, "file_name": "b.png"}]},
            MissingFiles,
            "z.png",
        ),
    ],
)
def test_malformed_annotations_are_refused(tmp_path, changes, error, message):
    put_coco(tmp_path, content={**COCO, **changes})
    with pytest.raises(error, match=message):
        load_dataset(tmp_path)


def test_a_box_outside_of_its_image_cannot_be_read(tmp_path):
    annotations = [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [500, 5, 10, 10]}]
    dataset = load_dataset(put_coco(tmp_path, content={**COCO, "annotations": annotations}))
    with pytest.raises(InvalidDataset, match="outside"):
        dataset.read_bytes(dataset.samples[0])


def put_fiftyone(folder, labels, classes=("cat", "dog")):
    put_picture(folder / "data" / "a.png", 0)
    put_picture(folder / "data" / "sub" / "b.jpg", 1)
    content = {"classes": None if classes is None else list(classes), "labels": labels}
    (folder / "labels.json").write_text(json.dumps(content))
    return folder


def test_fiftyone_classification_gives_labels(tmp_path):
    dataset = load_dataset(put_fiftyone(tmp_path, {"a": 1, "sub/b": {"label": 0, "confidence": 0.9}}))
    assert detect_format(tmp_path) == "fiftyone"
    assert [(s.source, s.label) for s in dataset.samples] == [
        ("data/a.png", "dog"),
        ("data/sub/b.jpg", "cat"),
    ]
    assert dataset.read_bytes(dataset.samples[0]) == (tmp_path / "data/a.png").read_bytes()


def test_fiftyone_detection_gives_crops(tmp_path):
    boxes = [{"label": "dog", "bounding_box": [0.25, 0.5, 0.5, 0.25]}]
    dataset = load_dataset(put_fiftyone(tmp_path, {"a": boxes, "sub/b": None}, classes=None))
    crop, whole = dataset.samples
    assert (crop.label, whole.label) == ("dog", None)
    np.testing.assert_array_equal(decode_image(dataset.read_bytes(crop)).pixels, picture(0)[20:30, 12:36])


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"a": 2}, InvalidDataset, "label 2 of 2 classes"),
        ({"z": 1}, MissingFiles, "1 of 1"),
        ({"a": [{"label": 0}]}, InvalidDataset, "detection 0"),
        ({"a": [{"label": 0, "bounding_box": [0, 0, 0, 1]}]}, InvalidDataset, "area"),
        ({}, InvalidDataset, "empty"),
    ],
)
def test_malformed_fiftyone_labels_are_refused(tmp_path, labels, error, message):
    with pytest.raises(error, match=message):
        load_dataset(put_fiftyone(tmp_path, labels))
