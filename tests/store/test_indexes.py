"""Indexes and descriptions: found by what determines them."""

import dataclasses

import pytest

from fulcrum.domain.errors import AlreadyExists
from fulcrum.domain.identifiers import new_id, now


def test_an_index_is_current_until_its_data_set_changes(world):
    w = world
    with w.store.write() as tx:
        assert tx.indexes.by_key(w.dataset.id, w.sae.id, w.index.key) == w.index
        assert tx.indexes.by_key(w.dataset.id, w.sae.id, "9" * 64) is None
        assert tx.indexes.current(w.dataset, w.sae.id) == w.index
        newer = dataclasses.replace(w.index, id=new_id("idx"), key="6" * 64, created_at=now())
        tx.indexes.add(newer)
        assert tx.indexes.current(w.dataset, w.sae.id) == newer
        assert tx.indexes.current(dataclasses.replace(w.dataset, digest="0" * 64), w.sae.id) is None
        assert tx.indexes.current(dataclasses.replace(w.dataset, digest=None), w.sae.id) is None


def test_what_is_there_already_is_not_registered_twice(world):
    w = world
    with w.store.write() as tx:
        with pytest.raises(AlreadyExists, match="an index of data set"):
            tx.indexes.add(dataclasses.replace(w.index, id=new_id("idx")))
        with pytest.raises(AlreadyExists, match="a description of SAE"):
            tx.descriptions.add(dataclasses.replace(w.description, id=new_id("dsc")))


def test_the_newest_description_of_an_sae_is_shown(world):
    w = world
    newer = dataclasses.replace(w.description, id=new_id("dsc"), key="7" * 64, created_at=now())
    with w.store.write() as tx:
        assert tx.descriptions.newest(w.sae.id) == w.description
        tx.descriptions.add(newer)
        assert tx.descriptions.newest(w.sae.id, w.dataset.id) == newer
        assert tx.descriptions.newest(w.sae.id, "dat_other") is None
        assert tx.descriptions.by_key(w.index.id, "4" * 64) == w.description
