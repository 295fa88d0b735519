"""Image sets: named once for a data set while they live, changed by version, gone without a trace for others."""

import dataclasses

import pytest

from fulcrum.domain.errors import AlreadyExists, NotFound, StaleVersion, UnknownImageSet
from fulcrum.domain.identifiers import new_id
from fulcrum.domain.image_sets import FrozenImageSet, from_bytes, to_bytes


def test_a_name_is_taken_once_for_a_data_set_and_free_after_deletion(world):
    w = world
    other = dataclasses.replace(w.dataset, id=new_id("dat"), name="other")
    with w.store.write() as tx:
        tx.datasets.add(other)
        with pytest.raises(AlreadyExists, match="image set 'night'"):
            tx.image_sets.add(dataclasses.replace(w.image_set, id=new_id("ims")))
        elsewhere = dataclasses.replace(w.image_set, id=new_id("ims"), dataset_id=other.id)
        assert tx.image_sets.add(elsewhere) == elsewhere
        assert tx.image_sets.list(dataset_id=other.id).items == (elsewhere,)
        tx.image_sets.delete(w.image_set.id, 1)
        assert tx.image_sets.find(w.image_set.id) is None
        with pytest.raises(UnknownImageSet):
            tx.image_sets.get(w.image_set.id)
        again = tx.image_sets.add(dataclasses.replace(w.image_set, id=new_id("ims")))
        assert tx.image_sets.list(w.project.id, dataset_id=w.dataset.id).items == (again,)


def test_a_change_counts_the_version_and_keeps_what_the_set_is_of(world):
    w = world
    with w.store.write() as tx:
        changed = tx.image_sets.update(w.image_set.id, 1, sha256="1" * 64, n_images=2, n_by_split={"a": 2})
        assert changed == dataclasses.replace(
            w.image_set, sha256="1" * 64, n_images=2, n_by_split={"a": 2}, version=2
        )
        assert changed.frozen() == FrozenImageSet(w.image_set.id, "night", "invariant", "1" * 64, 2)
        with pytest.raises(StaleVersion):
            tx.image_sets.update(w.image_set.id, 1, note="late")
        with pytest.raises(AssertionError, match="cannot be changed"):
            tx.image_sets.update(w.image_set.id, dataset_id="dat_other")
        with pytest.raises(NotFound, match="dataset_id"):
            tx.image_sets.add(dataclasses.replace(w.image_set, id=new_id("ims"), dataset_id="dat_none"))


def test_an_evaluation_keeps_which_sets_it_judged_and_one_from_before_has_none(world):
    w = world
    frozen = w.image_set.frozen()
    judged = dataclasses.replace(w.evaluation, id=new_id("evl"), image_sets=(frozen,))
    with w.store.write() as tx:
        tx.evaluations.add(judged)
        tx.image_sets.delete(w.image_set.id)
        assert tx.evaluations.get(judged.id).image_sets == (frozen,)
        assert tx.evaluations.get(w.evaluation.id).image_sets == ()


def test_the_same_images_are_the_same_bytes():
    assert to_bytes(["b", "a", "b"]) == to_bytes(("a", "b")) == b'["a","b"]'
    odd = ["ü/1 é?#%.png", '"', "\udc80"]
    assert from_bytes(to_bytes(odd)) == tuple(sorted(odd))
