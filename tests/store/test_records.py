"""What goes in comes out: every kind of record, every field, on both databases."""

import dataclasses
import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulcrum.domain import records
from fulcrum.domain.errors import ComputationFailed, InvalidRequest, NotFound
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import SessionEntry
from fulcrum.store.transaction import METADATA

from .samples import World

# `store` is kept between examples: each adds rows of its own.
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

STORED = {
    "users": records.User,
    "api_tokens": records.ApiToken,
    "logins": records.Login,
    "projects": records.Project,
    "members": records.Member,
    "models": records.ModelRecord,
    "saes": records.SaeRecord,
    "images": records.ImageRecord,
    "datasets": records.DatasetRecord,
    "dataset_versions": records.DatasetVersion,
    "sessions": records.SessionRecord,
    "session_entries": records.SessionEntry,
    "corrections": records.CorrectionRecord,
    "correction_versions": records.CorrectionVersion,
    "concepts": records.ConceptRecord,
    "indexes": records.IndexRecord,
    "descriptions": records.DescriptionRecord,
    "results": records.ResultRecord,
    "evaluations": records.EvaluationRecord,
    "experts": records.ExpertsRecord,
    "image_sets": records.ImageSetRecord,
    "looks": records.LookRecord,
    "audit_events": records.AuditEvent,
}
OUR_OWN = {"login_links", "idempotency_keys", "audit_head"}  # no words of the domain
OF_JOBS = {
    "import_contents",
    "jobs",
    "job_needs",
    "job_tasks",
    "job_events",
    "shard_results",
}  # words of `domain.jobs`
SECRETS = {"secret_hash", "password_hash", "name_key", "deleted_at"}  # what a record does not show


def test_every_record_of_the_domain_has_a_table_with_its_fields():
    own = [r for r in vars(records).values() if getattr(r, "__module__", None) == records.__name__]
    found = {r for r in own if dataclasses.is_dataclass(r)} - {records.Page}
    assert set(STORED.values()) == found
    assert set(METADATA.tables) == set(STORED) | OUR_OWN | OF_JOBS
    for table, record in STORED.items():
        columns = set(METADATA.tables[table].columns.keys())
        assert columns - SECRETS == {f.name for f in dataclasses.fields(record)}, table


def test_every_record_comes_back_as_it_was_given(world):
    w: World = world
    with w.store.read() as tx:
        assert tx.users.get(w.user.id) == w.user
        assert tx.tokens.get(w.token.id) == w.token
        assert tx.logins.get(w.login.id) == w.login
        assert tx.projects.get(w.project.id) == w.project
        assert tx.models.get(w.model.id) == w.model
        assert tx.saes.get(w.sae.id) == w.sae
        assert tx.images.get(w.image.id) == w.image
        assert tx.datasets.get(w.dataset.id) == w.dataset
        assert tx.dataset_versions.get(w.dataset_version.id) == w.dataset_version
        assert tx.dataset_versions.of_job("job_1") == w.dataset_version
        assert tx.dataset_versions.newest(w.dataset.id, "f" * 64) == w.dataset_version
        assert tx.dataset_versions.newest(w.dataset.id, "e" * 64) is None
        assert tx.sessions.get(w.session.id) == w.session
        assert tx.sessions.entries(w.session.id).items == (w.entry,)
        assert tx.corrections.get(w.correction.id) == w.correction
        assert tx.corrections.get_version(w.correction.id) == w.version
        assert tx.concepts.get(w.concept.id) == w.concept
        assert tx.results.get(w.result.id) == w.result
        assert tx.indexes.get(w.index.id) == w.index
        assert tx.descriptions.get(w.description.id) == w.description
        assert tx.experts.get(w.experts.id) == w.experts
        assert tx.image_sets.get(w.image_set.id) == w.image_set


COLLECTIONS = """users tokens logins projects models saes images datasets sessions corrections concepts results indexes
    descriptions"""


def test_an_id_that_nobody_has_is_not_found_by_a_clear_word(world):
    with world.store.read() as tx:
        for collection in COLLECTIONS.split():
            for id in ("", "mdl_nothere", "\x00", "ä" * 500, "' OR 1=1 --", "\ud800"):
                with pytest.raises(NotFound, match=r"no .* with the id") as raised:
                    getattr(tx, collection).get(id)
                assert type(raised.value) is not NotFound


times = st.datetimes(
    datetime(1900, 1, 1),
    datetime(2900, 1, 1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5)), timezone(timedelta(hours=5, minutes=45))]),
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=50)
numbers = st.floats(allow_nan=False, allow_infinity=False)
contents = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@FEW
@given(at=times, name=texts, size=st.integers(-(2**63), 2**63 - 1))
def test_times_texts_and_numbers_keep_every_digit(world, at, name, size):
    image = world.another_image(created_at=at, filename=name, size_bytes=size)
    with world.store.write() as tx:
        tx.images.add(image)
    with world.store.read() as tx:
        found = tx.images.get(image.id)
    assert found == image
    assert found.created_at.utcoffset() == timedelta(0)


@FEW
@given(content=st.dictionaries(st.text(max_size=5), contents, max_size=3))
def test_any_json_comes_back_as_it_was_also_with_odd_characters(world, content):
    w: World = world
    entry = SessionEntry(new_id("ent"), w.session.id, "note", content, w.user.id, now())
    with w.store.write() as tx:
        tx.sessions.add_entry(entry)
    with w.store.read() as tx:
        assert tx.sessions.entries(w.session.id, limit=1).items[0].content == content


def test_a_number_that_is_none_is_no_result(world):
    w: World = world
    result = dataclasses.replace(w.result, id=new_id("res"), response={"probs": [math.nan]})
    with pytest.raises(ComputationFailed), w.store.write() as tx:
        tx.results.add(result)


@pytest.mark.parametrize("name", ["a\x00b", "a\ud800b"])
def test_text_that_one_of_the_databases_cannot_hold_is_refused_on_both(world, name):
    with pytest.raises(InvalidRequest, match=r"model\.name"), world.store.write() as tx:
        tx.models.add(world.another_model(name))
    with pytest.raises(InvalidRequest, match=r"model\.name"), world.store.write() as tx:
        tx.models.update(world.model.id, name=name)
    with pytest.raises(InvalidRequest), world.store.read() as tx:
        tx.models.list(name=name)
    with pytest.raises(InvalidRequest), world.store.read() as tx:
        tx.users.password_hash(name)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
def test_a_number_beyond_64_bits_is_refused_on_both(world, number):
    with pytest.raises(InvalidRequest, match="64 bits"), world.store.read() as tx:
        tx.concepts.by_latent(world.sae.id, number)
    with pytest.raises(InvalidRequest, match="64 bits"), world.store.write() as tx:
        tx.images.add(world.another_image(width=number))


def test_a_time_without_a_zone_is_a_bug_and_not_stored(world):
    with pytest.raises(AssertionError, match="time zone"), world.store.write() as tx:
        tx.images.add(world.another_image(created_at=datetime(2026, 1, 1)))


def test_what_a_record_names_must_exist(world):
    with pytest.raises(NotFound, match=r"model\.project_id is 'prj_none'"), world.store.write() as tx:
        tx.models.add(dataclasses.replace(world.model, id=new_id("mdl"), project_id="prj_none"))
    with pytest.raises(NotFound, match=r"SAE\.model_id is 'mdl_none'"), world.store.write() as tx:
        tx.saes.add(dataclasses.replace(world.sae, id=new_id("sae"), name="x", model_id="mdl_none"))
