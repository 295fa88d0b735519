"""Searches for experts: found by what determines them, under the name that was given."""

import dataclasses

import pytest

from fulcrum.domain.errors import AlreadyExists, UnknownExperts
from fulcrum.domain.identifiers import new_id


def test_a_search_is_found_by_key_and_name_and_kept_once(world):
    w = world
    with w.store.write() as tx:
        assert tx.experts.by_key(w.project.id, w.experts.key, "objects") == w.experts
        assert tx.experts.by_key(w.project.id, w.experts.key, "others") is None
        with pytest.raises(AlreadyExists, match="search for experts 'objects'"):
            tx.experts.add(dataclasses.replace(w.experts, id=new_id("exp")))
        renamed = tx.experts.add(dataclasses.replace(w.experts, id=new_id("exp"), name="others"))
        assert tx.experts.list(sae_id=w.sae.id).items == (renamed, w.experts)
        with pytest.raises(UnknownExperts):
            tx.experts.get("exp_none")
