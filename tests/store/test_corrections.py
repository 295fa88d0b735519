"""Corrections and their versions."""

import dataclasses

import pytest
import sqlalchemy as sa

from fulcrum.domain.errors import (
    AlreadyExists,
    CorruptArtifact,
    InvalidRequest,
    StaleVersion,
    UnknownCorrection,
)
from fulcrum.domain.identifiers import new_id
from fulcrum.store.engines import open_engine
from fulcrum.store.transaction import METADATA

from .samples import correction, version_of


def test_a_new_version_gets_the_next_number_and_makes_the_correction_a_draft_again(world):
    w = world
    new = version_of(w.correction.id, w.user.id, correction(gain=0.5), number=77)
    with w.store.write() as tx:
        approved = tx.corrections.update(w.correction.id, state="approved")
        head = tx.corrections.add_version(w.correction.id, approved.version, new)
        assert (head.latest, head.version, head.state) == (2, 3, "draft")
        assert tx.corrections.get_version(w.correction.id) == dataclasses.replace(new, number=2)
        assert tx.corrections.get_version(w.correction.id, 1) == w.version
        assert [v.number for v in tx.corrections.versions(w.correction.id).items] == [2, 1]
        assert tx.corrections.versions(w.correction.id, limit=1).next_cursor is not None


def test_the_same_content_again_is_no_new_version_but_an_older_one_may_come_back(world):
    w = world
    with w.store.write() as tx, pytest.raises(AlreadyExists, match=r"version 1 .* same content"):
        tx.corrections.add_version(w.correction.id, None, w.version)
    with w.store.read() as tx:
        assert tx.corrections.get(w.correction.id) == w.correction
    with w.store.write() as tx:
        tx.corrections.add_version(
            w.correction.id, None, version_of(w.correction.id, w.user.id, correction(gain=2.0))
        )
        assert tx.corrections.add_version(w.correction.id, None, w.version).latest == 3
        assert tx.corrections.get_version(w.correction.id).sha256 == w.version.sha256


def test_a_version_on_top_of_a_stale_head_is_refused_and_leaves_no_trace(world):
    w = world
    with w.store.write() as tx:
        tx.corrections.update(w.correction.id, description="changed")
    with pytest.raises(StaleVersion), w.store.write() as tx:
        tx.corrections.add_version(
            w.correction.id, 1, version_of(w.correction.id, w.user.id, correction(gain=2.0))
        )
    with w.store.read() as tx:
        assert tx.corrections.get(w.correction.id).latest == 1
        assert len(tx.corrections.versions(w.correction.id).items) == 1


def test_the_hash_of_a_version_must_be_that_of_its_content(world):
    wrong = dataclasses.replace(world.version, correction=correction(gain=3.0))
    with pytest.raises(InvalidRequest, match="sha256"), world.store.write() as tx:
        tx.corrections.add_version(world.correction.id, None, wrong)


def test_a_version_that_was_altered_in_the_database_is_not_given_out(world, url):
    engine = open_engine(url)
    table = METADATA.tables["correction_versions"]
    with engine.execution_options(fulcrum_write=True).begin() as connection:
        content = connection.execute(sa.select(table.c.correction)).scalar_one()
        content["edits"][0]["gain"] = 9.0
        connection.execute(sa.update(table).values(correction=content))
    engine.dispose()
    with pytest.raises(CorruptArtifact, match="version 1"), world.store.read() as tx:
        tx.corrections.get_version(world.correction.id)


def test_versions_of_an_unknown_or_deleted_correction_are_not_found(world):
    w = world
    with w.store.write() as tx:
        for number in (0, 2, -1):
            with pytest.raises(UnknownCorrection, match="has no version"):
                tx.corrections.get_version(w.correction.id, number)
        tx.corrections.delete(w.correction.id)
        for id in (w.correction.id, "cor_none"):
            with pytest.raises(UnknownCorrection):
                tx.corrections.get_version(id)
            with pytest.raises(UnknownCorrection):
                tx.corrections.versions(id)
            with pytest.raises(UnknownCorrection):
                tx.corrections.add_version(id, None, w.version)


def test_a_correction_whose_name_is_taken_leaves_no_version_behind(world):
    w = world
    record = dataclasses.replace(w.correction, id=new_id("cor"))
    with pytest.raises(AlreadyExists, match="no stickers"), w.store.write() as tx:
        tx.corrections.add(record, dataclasses.replace(w.version, correction_id=record.id))
    with w.store.read() as tx:
        assert [c.id for c in tx.corrections.list(w.project.id).items] == [w.correction.id]
