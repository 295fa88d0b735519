"""Data sets in memory: columns, selections, the digest."""

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulcrum.datasets.byte_sources import FileSource
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.domain.errors import (
    DatasetWithoutLabels,
    InvalidDataset,
    MissingFiles,
    SingleClassDataset,
    UnknownDataset,
)


@pytest.fixture
def root(tmp_path):
    for name in "abcdef":
        (tmp_path / name).write_bytes(name.encode() * 10)
    return tmp_path


def samples(**changes):
    made = [
        Sample("1", "a", "dog", "confirm", {"sticker": "word"}, {"size": 1.0}, "p"),
        Sample("2", "b", "dog", "confirm", {"sticker": "none"}, {"size": 3.0}, "p"),
        Sample("3", "c", "cat", "discover", {"sticker": "word", "frame": "yes"}, {"size": 2.0}),
        Sample("4", "d", None, None, {}, {}),
    ]
    return [replace(s, **changes) for s in made]


def test_columns_follow_the_order_of_the_ids(root):
    dataset = Dataset.create("x", root, reversed(samples()))
    assert dataset.ids.tolist() == ["1", "2", "3", "4"]
    assert dataset.labels.tolist() == ["dog", "dog", "cat", ""]
    assert dataset.class_names == ("cat", "dog")
    assert dataset.label_numbers.tolist() == [1, 1, 0, -1]
    assert dataset.splits.tolist() == ["confirm", "confirm", "discover", ""]
    assert dataset.split_names == ("confirm", "discover")
    assert dataset.pair_ids.tolist() == ["p", "p", "", ""]
    assert dataset.groups["sticker"].tolist() == ["word", "none", "word", ""]
    assert dataset.groups["frame"].tolist() == ["", "", "yes", ""]
    np.testing.assert_array_equal(dataset.covariates["size"], [1.0, 3.0, 2.0, np.nan])
    assert dataset.covariate_bins("size", 2).tolist() == ["q1", "q2", "q1", ""]
    assert dataset.read_bytes(dataset.samples[1]) == b"b" * 10


def test_selections_keep_class_names_and_numbers_name_their_images(root):
    dataset = Dataset.create("x", root, samples())
    assert dataset.numbers(split="confirm", sticker="word").tolist() == [0]
    assert dataset.numbers(split="discover", sticker="none").tolist() == []
    confirm = dataset.split("confirm")
    assert confirm.ids.tolist() == ["1", "2"]
    assert confirm.class_names == ("cat", "dog")
    assert dataset.where(label="dog", sticker="none").ids.tolist() == ["2"]
    assert dataset.subset([2, 0, 2]).ids.tolist() == ["1", "3"]
    assert dataset.number("3") == 2


def test_selections_that_cannot_be_meant_are_refused(root):
    dataset = Dataset.create("x", root, samples())
    with pytest.raises(InvalidDataset, match=r"split 'test': there is \['confirm', 'discover'\]"):
        dataset.split("test")
    with pytest.raises(InvalidDataset, match="no group 'hat'"):
        dataset.where(hat="yes")
    with pytest.raises(InvalidDataset, match="group sticker 'hat'"):
        dataset.where(sticker="hat")
    with pytest.raises(InvalidDataset, match="empty selection"):
        dataset.where(label="cat", sticker="none")
    with pytest.raises(InvalidDataset, match=r"0 \.\. 3"):
        dataset.subset([4])
    with pytest.raises(UnknownDataset, match="no image '9'"):
        dataset.number("9")
    with pytest.raises(InvalidDataset, match="no covariate"):
        dataset.covariate_bins("weight")
    with pytest.raises(InvalidDataset, match="n_bins"):
        dataset.covariate_bins("size", 1)


def test_equal_covariates_share_a_bin():
    dataset = Dataset.create(
        "x", None, [Sample(str(i), "a", covariates={"v": float(i > 1)}) for i in range(4)]
    )
    assert dataset.covariate_bins("v", 4).tolist()[:2] == ["q1", "q1"]
    assert len(set(dataset.covariate_bins("v", 4).tolist()[2:])) == 1


def test_labels_and_classes_are_required_where_a_question_needs_them(root):
    dataset = Dataset.create("x", root, samples())
    with pytest.raises(DatasetWithoutLabels, match=r"1 of 4 .* none, first: \['4'\]"):
        dataset.require_labels()
    with pytest.raises(DatasetWithoutLabels):
        dataset.require_classes()
    labelled = dataset.subset([0, 1, 2])
    labelled.require_classes()
    with pytest.raises(SingleClassDataset, match=r"at least 3: 'x' has \['cat', 'dog'\]"):
        labelled.require_classes(3)
    with pytest.raises(SingleClassDataset, match=r"\['dog'\]"):
        dataset.split("confirm").require_classes()


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        ([], {}, "is empty"),
        ([Sample(" ", "a")], {}, "blank id"),
        ([Sample("1", "a"), Sample("1", "b")], {}, "ids must differ"),
        ([Sample("1", "a", label=" ")], {}, "label of '1' is blank"),
        ([Sample("1", "a", label="x")], {"class_names": ["y"]}, "not among its class names"),
        ([Sample("1", "a")], {"class_names": ["y", "y"]}, "must differ"),
    ],
)
def test_samples_that_make_no_data_set_are_refused(root, made, options, message):
    with pytest.raises(InvalidDataset, match=message):
        Dataset.create("x", root, made, **options)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(4)))
def test_the_digest_does_not_depend_on_the_order_of_the_samples(root, order):
    made = samples()
    digest = Dataset.create("x", root, made).digest
    assert Dataset.create("another name", root, [made[i] for i in order]).digest == digest


def test_the_digest_does_not_depend_on_where_and_how_the_files_are_named(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in "abcd":
        (elsewhere / f"{name}.x").write_bytes((root / name).read_bytes())
    moved = [replace(s, source=f"{s.source}.x") for s in samples()]
    assert Dataset.create("x", elsewhere, moved).digest == Dataset.create("x", root, samples()).digest


@pytest.mark.parametrize(
    "changes",
    [{"label": "fish"}, {"split": "select"}, {"groups": {"sticker": "none"}}, {"id": "0"}, {"source": "e"}],
)
def test_the_digest_changes_with_id_bytes_label_groups_and_split(root, changes):
    made = samples()
    changed = [replace(made[0], **changes), *made[1:]]
    assert Dataset.create("x", root, changed).digest != Dataset.create("x", root, made).digest


def test_the_digest_cannot_be_fooled_by_moving_text_between_columns(root):
    a = Dataset.create("x", root, [Sample("1", "a", label="x", split=None)])
    b = Dataset.create("x", root, [Sample("1", "a", label=None, split="x")])
    c = Dataset.create("x", root, [Sample("1", "a", label="null", split="x")])
    assert len({a.digest, b.digest, c.digest}) == 3


def test_the_digest_notices_a_changed_file_and_hashes_unchanged_ones_once(root):
    class Counting(FileSource):
        def read(self, source):
            reads.append(source)
            return super().read(source)

    reads = []
    dataset = Dataset.create("x", root, samples(), byte_source=Counting(root))
    before = dataset.digest
    assert dataset.split("confirm").digest != before
    assert sorted(reads) == ["a", "b", "c", "d"]
    (root / "a").write_bytes(b"changed")
    os.utime(root / "a", ns=(1, 1))
    again = dataset.with_samples(dataset.samples)
    assert again.digest != before
    assert sorted(reads) == ["a", "a", "b", "c", "d"]


def test_a_file_that_vanished_is_missing(root):
    dataset = Dataset.create("x", root, samples())
    (root / "b").unlink()
    with pytest.raises(MissingFiles, match="'b'"):
        dataset.read_bytes(dataset.samples[1])
    with pytest.raises(MissingFiles, match="'b'"):
        _ = dataset.digest


def test_progress_of_hashing_is_told(root):
    calls = []
    dataset = Dataset.create("x", root, samples())
    dataset.hashes.sha256_of(["a", "b"], progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 2)]
