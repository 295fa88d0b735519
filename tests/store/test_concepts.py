"""Labels of latents, and those they had before."""

import dataclasses

import pytest

from fulcrum.domain.errors import NotFound, StaleVersion, UnknownConcept
from fulcrum.domain.identifiers import new_id, now


def labelled(world, label, **changes):
    return dataclasses.replace(
        world.concept, **{"id": new_id("con"), "label": label, "label_source": "person", **changes}
    )


def test_a_new_label_moves_the_old_one_to_the_front_of_the_history(world):
    w = world
    second = labelled(w, "word", label_score=None, note="", created_by=w.other.id, created_at=now())
    with w.store.write() as tx:
        kept = tx.concepts.put(second, expected_version=1)
        assert kept == dataclasses.replace(second, id=w.concept.id, version=2, history=kept.history)
        third = tx.concepts.put(labelled(w, "letters"), expected_version=2)
        assert third == tx.concepts.by_latent(w.sae.id, 7) == tx.concepts.get(w.concept.id)
    assert [(h["label"], h["version"], h["created_by"]) for h in third.history] == [
        ("word", 2, w.other.id),
        ("sticker", 1, w.user.id),
    ]
    assert third.history[1]["label_score"] == 0.875
    assert third.history[1]["note"] == "seen on mugs"


def test_a_label_over_one_that_was_not_seen_is_refused(world):
    with world.store.write() as tx:
        for expected in (0, 2):
            with pytest.raises(StaleVersion):
                tx.concepts.put(labelled(world, "word"), expected_version=expected)
        with pytest.raises(StaleVersion, match="no concept yet"):
            tx.concepts.put(labelled(world, "word", latent=8), expected_version=1)
        assert tx.concepts.by_latent(world.sae.id, 7) == world.concept


def test_a_first_label_starts_with_version_1_and_no_history(world):
    claimed = labelled(world, "eye", latent=8, version=9, history=({"label": "made up"},))
    with world.store.write() as tx:
        kept = tx.concepts.put(claimed, expected_version=0)
        assert (kept.id, kept.version, kept.history) == (claimed.id, 1, ())
        assert tx.concepts.by_latent(world.sae.id, 9) is None


def test_a_concept_belongs_to_an_sae_that_exists(world):
    with pytest.raises(NotFound, match="sae_none"), world.store.write() as tx:
        tx.concepts.put(labelled(world, "x", sae_id="sae_none"))


def test_a_deleted_concept_can_be_labelled_anew(world):
    with world.store.write() as tx:
        tx.concepts.delete(world.concept.id)
        assert tx.concepts.by_latent(world.sae.id, 7) is None
        with pytest.raises(UnknownConcept):
            tx.concepts.get(world.concept.id)
        assert tx.concepts.put(labelled(world, "new")).history == ()


def test_concepts_are_found_by_words_in_label_or_note(world):
    with world.store.write() as tx:
        tx.concepts.put(labelled(world, "100% cotton_bag", latent=8, note="", created_at=now()))

        def search(words, **filters):
            return [c.label for c in tx.concepts.search(words, **filters).items]

        assert search("STICK") == ["sticker"]
        assert search("mugs") == ["sticker"]
        assert search("") == ["100% cotton_bag", "sticker"]
        assert search("100%") == ["100% cotton_bag"]
        assert search("%") == ["100% cotton_bag"]
        assert search("n_b") == ["100% cotton_bag"]
        assert search("t_c") == []
        assert search("sticker", sae_id="sae_other") == []


def test_a_label_that_a_program_found_never_replaces_a_persons(world):
    w = world
    found = [
        labelled(w, f"word {n}", latent=n, label_source="auto", label_score=0.5, note="") for n in range(600)
    ]
    with w.store.write() as tx:
        tx.concepts.put(labelled(w, "mug", latent=3))
        tx.concepts.put(labelled(w, "", latent=4))  # taken back by a person
    with w.store.write() as tx:
        assert tx.concepts.put_auto(found) == 598
        assert tx.concepts.by_latent(w.sae.id, 3).label == "mug"
        assert tx.concepts.by_latent(w.sae.id, 4).label == ""
        seven = tx.concepts.by_latent(w.sae.id, 7)
        assert (seven.label, seven.label_source, seven.history[0]["label"]) == ("word 7", "auto", "sticker")
        assert len(tx.concepts.of_latents(w.sae.id)) == 600
        assert set(tx.concepts.of_latents(w.sae.id, [3, 9, 700])) == {3, 9}
    with w.store.write() as tx:
        again = [dataclasses.replace(r, id=new_id("con")) for r in found]
        assert tx.concepts.put_auto(again) == 0
        assert tx.concepts.by_latent(w.sae.id, 7).version == 2
