"""Evaluations, and looks that are counted once whoever looks at the same time, on both databases."""

import dataclasses
import threading

import pytest

from fulcrum.domain.errors import AlreadyExists, NotFound, UnknownEvaluation
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import LookRecord


@pytest.fixture
def look(store, world):
    def look(job_id, sha256="1" * 64, split="confirm", digest="f" * 64):
        record = LookRecord(new_id("lok"), world.project.id, digest, split, sha256, 0.01, 0, job_id, now())
        with store.write() as tx:
            return tx.looks.count(record)

    return look


def test_an_evaluation_comes_back_as_it_was_given_and_is_written_once(world):
    w = world
    with w.store.read() as tx:
        assert tx.evaluations.get(w.evaluation.id) == w.evaluation
        assert tx.evaluations.find("evl_none") is None
        assert tx.evaluations.list(w.project.id, correction_id=w.correction.id).items == (w.evaluation,)
        assert tx.evaluations.list(w.project.id, kind="sweep").items == ()
        with pytest.raises(UnknownEvaluation):
            tx.evaluations.get("evl_none")
    with pytest.raises(AlreadyExists), w.store.write() as tx:
        tx.evaluations.add(w.evaluation)


def test_looks_are_numbered_for_each_version_split_and_data_set(store, world, look):
    assert [look("job_1").number, look("job_2").number] == [1, 2]
    assert look("job_3", sha256="2" * 64).number == 1
    assert look("job_4", split="select").number == 1
    assert look("job_5", digest="e" * 64).number == 1
    with store.read() as tx:
        known = tx.looks.at(world.project.id, "f" * 64)
    assert [k.job_id for k in known] == ["job_1", "job_2", "job_3", "job_4"]


def test_a_job_that_is_tried_again_counts_one_look(look):
    first = look("job_1")
    look("job_2")
    assert look("job_1") == first


def test_looks_at_the_same_moment_get_different_numbers(look):
    numbers, errors = [], []

    def one(i):
        try:
            numbers.append(look(f"job_{i}").number)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert sorted(numbers) == list(range(1, 9))


def test_an_evaluation_names_a_correction_that_exists(world):
    stray = dataclasses.replace(world.evaluation, id=new_id("evl"), correction_id="cor_none")
    with pytest.raises(NotFound, match="cor_none"), world.store.write() as tx:
        tx.evaluations.add(stray)
