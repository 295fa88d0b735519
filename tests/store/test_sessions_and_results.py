"""The log of a session and the answers that it points to."""

import dataclasses

import pytest

from fulcrum.domain.errors import AlreadyExists, NotFound, UnknownSession
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import SessionEntry


def test_the_log_of_a_deleted_or_unknown_session_is_closed(world):
    entry = SessionEntry(new_id("ent"), world.session.id, "note", {}, world.user.id, now())
    with world.store.write() as tx:
        tx.sessions.delete(world.session.id)
        for session_id in (world.session.id, "ses_none"):
            with pytest.raises(UnknownSession):
                tx.sessions.add_entry(dataclasses.replace(entry, session_id=session_id))
            with pytest.raises(UnknownSession):
                tx.sessions.entries(session_id)


def test_a_line_of_the_log_names_a_result_that_exists(world):
    entry = dataclasses.replace(world.entry, id=new_id("ent"), result_id="res_none")
    with pytest.raises(NotFound, match="res_none"), world.store.write() as tx:
        tx.sessions.add_entry(entry)


def test_two_sessions_may_have_one_title(world):
    with world.store.write() as tx:
        tx.sessions.add(dataclasses.replace(world.session, id=new_id("ses")))
        assert len(tx.sessions.list(world.project.id, created_by=world.user.id).items) == 2


def test_the_newest_answer_of_a_question_is_found_by_its_key(world):
    again = dataclasses.replace(world.result, id=new_id("res"), created_at=now())
    with world.store.write() as tx:
        assert tx.results.by_key(world.project.id, world.result.key) == world.result
        tx.results.add(again)
        assert tx.results.by_key(world.project.id, world.result.key) == again
        assert tx.results.by_key(world.project.id, "other") is None
        assert tx.results.by_key("prj_other", world.result.key) is None
        assert tx.results.list(world.project.id, image_id=world.image.id).items == (again, world.result)


def test_a_result_is_never_written_twice_under_one_id(world):
    with pytest.raises(AlreadyExists), world.store.write() as tx:
        tx.results.add(dataclasses.replace(world.result, key="other"))
