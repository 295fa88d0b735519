"""Labels of latents, and those they had before."""

import dataclasses
import json

import pytest
import sqlalchemy as sa

from fulcrum.domain.errors import NotFound, NothingToReview, StaleVersion, UnknownConcept
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.labels import EarlierLabel
from fulcrum.store import migrating
from fulcrum.store.database import migrate, open_store
from fulcrum.store.engines import open_engine

MADE_UP = EarlierLabel("made up", "person", None, "", "usr_x", now(), 8)


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
    assert [(h.label, h.version, h.created_by) for h in third.history] == [
        ("word", 2, w.other.id),
        ("sticker", 1, w.user.id),
    ]
    assert third.history[1].label_score == 0.875
    assert third.history[1].note == "seen on mugs"


def test_a_label_over_one_that_was_not_seen_is_refused(world):
    with world.store.write() as tx:
        for expected in (0, 2):
            with pytest.raises(StaleVersion):
                tx.concepts.put(labelled(world, "word"), expected_version=expected)
        with pytest.raises(StaleVersion, match="no concept yet"):
            tx.concepts.put(labelled(world, "word", latent=8), expected_version=1)
        assert tx.concepts.by_latent(world.sae.id, 7) == world.concept


def test_a_first_label_starts_with_version_1_and_no_history(world):
    claimed = labelled(world, "eye", latent=8, version=9, history=(MADE_UP,))
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
        assert (seven.label, seven.label_source, seven.history[0].label) == ("word 7", "auto", "sticker")
        assert len(tx.concepts.of_latents(w.sae.id)) == 600
        assert set(tx.concepts.of_latents(w.sae.id, [3, 9, 700])) == {3, 9}
    with w.store.write() as tx:
        again = [dataclasses.replace(r, id=new_id("con")) for r in found]
        assert tx.concepts.put_auto(again) == 0
        assert tx.concepts.by_latent(w.sae.id, 7).version == 2


def proposed(world, label, by, **changes):
    return labelled(world, label, created_by=by.id, review="proposed", label_score=None, note="", **changes)


def reviewed(tx, world, decision, by, latent=7, note=""):
    concept = tx.concepts.by_latent(world.sae.id, latent)
    return tx.concepts.review(concept, decision, by=by.id, at=now(), note=note)


def test_a_confirmed_label_keeps_who_confirmed_it_and_stays(world):
    w = world
    with w.store.write() as tx:
        tx.concepts.put(proposed(w, "letters", w.other))
        found = reviewed(tx, w, "confirm", w.user, note="seen on twenty")
        assert (found.label, found.review, found.reviewed_by, found.review_note, found.version) == (
            "letters",
            "confirmed",
            w.user.id,
            "seen on twenty",
            3,
        )
        assert found.reviewed_at is not None
        assert [h.label for h in found.history] == ["sticker"]
        with pytest.raises(NothingToReview, match="confirmed already"):
            reviewed(tx, w, "reject", w.user)
        later = tx.concepts.put(proposed(w, "word", w.user))
        assert (later.review, later.reviewed_by, later.history[0].review) == ("proposed", None, "confirmed")
        assert later.history[0].reviewed_by == w.user.id


def test_a_rejected_label_leaves_the_one_before_it_as_it_was(world):
    w = world
    with w.store.write() as tx:
        tx.concepts.put(proposed(w, "letters", w.other))
        found = reviewed(tx, w, "reject", w.user, note="no letter in half of them")
    expected = dataclasses.replace(w.concept, version=3, history=found.history)
    assert found == expected
    (rejected,) = found.history
    assert (rejected.label, rejected.created_by, rejected.review, rejected.reviewed_by, rejected.version) == (
        "letters",
        w.other.id,
        "rejected",
        w.user.id,
        2,
    )
    assert rejected.review_note == "no letter in half of them"
    with w.store.write() as tx:
        with pytest.raises(NothingToReview, match="a program found"):
            reviewed(tx, w, "confirm", w.user)
        tx.concepts.put(proposed(w, "ink", w.other))
        assert reviewed(tx, w, "reject", w.user).label == "sticker"  # not "letters"
        assert [h.label for h in tx.concepts.by_latent(w.sae.id, 7).history] == ["ink", "letters"]


def test_what_the_same_author_proposed_on_the_way_does_not_come_back(world):
    w = world
    with w.store.write() as tx:
        tx.concepts.put(proposed(w, "leters", w.other))
        tx.concepts.put(proposed(w, "letters", w.other))
        found = reviewed(tx, w, "reject", w.user)
        assert (found.label, [h.review for h in found.history]) == ("sticker", ["rejected", "proposed"])
        tx.concepts.put(proposed(w, "word", w.user))
        tx.concepts.put(proposed(w, "letter", w.other))
        assert reviewed(tx, w, "reject", w.user).label == "word"  # somebody else's, which still waits


def test_where_the_only_label_is_rejected_a_program_may_say_what_it_finds(world):
    w = world
    with w.store.write() as tx:
        tx.concepts.put(proposed(w, "eye", w.other, latent=8))
        found = reviewed(tx, w, "reject", w.user, latent=8)
        assert (found.label, found.label_source, found.review, found.created_by) == (
            "",
            "auto",
            None,
            w.user.id,
        )
        assert (
            tx.concepts.put_auto([labelled(w, "iris", latent=8, label_source="auto", label_score=0.5)]) == 1
        )
        assert tx.concepts.by_latent(w.sae.id, 8).label == "iris"


def test_two_reviewers_cannot_both_decide(world):
    w = world
    with w.store.write() as tx:
        seen = tx.concepts.put(proposed(w, "letters", w.other))
        tx.concepts.review(seen, "confirm", by=w.user.id, at=now())
        with pytest.raises(StaleVersion):
            tx.concepts.review(seen, "reject", by=w.user.id, at=now())
        assert tx.concepts.by_latent(w.sae.id, 7).review == "confirmed"


def test_labels_that_wait_are_listed(world):
    w = world
    with w.store.write() as tx:
        for latent, label in ((7, "letters"), (8, "red letters"), (9, "eye")):
            tx.concepts.put(proposed(w, label, w.other, latent=latent, created_at=now()))
        reviewed(tx, w, "confirm", w.user, latent=9)
        waiting = tx.concepts.list(sae_id=w.sae.id, review="proposed").items
        assert [c.label for c in waiting] == ["red letters", "letters"]
        assert [c.label for c in tx.concepts.search("RED", review="proposed").items] == ["red letters"]
        assert tx.concepts.search("eye", review="proposed").items == ()
        assert tx.concepts.labels(w.sae.id)[9].review == "confirmed"


def test_labels_from_before_reviews_wait_for_one(empty_url):
    engine = open_engine(empty_url)
    with engine.execution_options(fulcrum_write=True).begin() as connection:
        migrating.upgrade(connection, "0008")
        for source in ("auto", "person"):
            write_as_0008_did(connection, source)
    engine.dispose()
    migrate(empty_url)
    with open_store(empty_url) as store, store.write() as tx:
        auto, person = tx.concepts.get("con_auto"), tx.concepts.get("con_person")
        assert (auto.review, person.review) == (None, "proposed")
        (earlier,) = person.history
        assert (earlier.label, earlier.review, earlier.review_note) == ("wrod", None, "")
        back = tx.concepts.review(person, "reject", by="usr_b", at=now())
        assert (back.label, back.review) == ("wrod", "proposed")  # also a person's


def write_as_0008_did(connection, source):
    at = (
        "2026-01-02 03:04:05+00:00"
        if connection.dialect.name == "postgresql"
        else "2026-01-02 03:04:05.000000"
    )
    earlier = {
        "label": "wrod", "label_source": "person", "label_score": None, "note": "", "created_by": "usr_b",
        "created_at": "2026-01-02T03:04:05+00:00", "version": 1,
    }  # fmt: skip
    rows = {
        "users": {"name": "n", "name_key": "n", "is_admin": False, "disabled": False},
        "projects": {"name": "p"},
        "models": {"project_id": "p", "created_by": "usr_a", "name": "m", "ref": "{}", "state": "ready"},
        "saes": {
            "project_id": "p", "created_by": "usr_a", "name": "s", "model_id": "m", "source": "x", "state": "ready",
        },
        "concepts": {
            "project_id": "p", "created_by": "usr_a", "sae_id": "s", "latent": len(source), "label": source,
            "label_source": source, "note": "", "history": json.dumps([earlier]), "version": 2,
        },
    }  # fmt: skip
    ids = {"users": ["usr_a", "usr_b"], "projects": ["p"], "models": ["m"], "saes": ["s"]}
    for table, values in rows.items():
        for id in ids.get(table, [f"con_{source}"]):
            if table != "concepts" and source == "person":
                continue  # there already
            row = {"id": id, "created_at": at, "version": 1, **values}
            if table == "users":
                row |= {"name": id, "name_key": id}
            names = ", ".join(row)
            marks = ", ".join(f":{name}" for name in row)
            connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), row)
