"""Versions, names and deletion of things that change."""

import dataclasses

import pytest

from fulcrum.domain.errors import AlreadyExists, InvalidRequest, StaleVersion, UnknownImage, UnknownModel
from fulcrum.domain.identifiers import new_id
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import Project


def test_a_change_counts_the_version_and_touches_nothing_else(world):
    with world.store.write() as tx:
        changed = tx.models.update(world.model.id, 1, name="new", ref=ModelRef("ViT-L-14"), info=None)
    expected = dataclasses.replace(world.model, name="new", ref=ModelRef("ViT-L-14"), info=None, version=2)
    assert changed == expected
    with world.store.read() as tx:
        assert tx.models.get(world.model.id) == expected


def test_a_change_of_what_somebody_else_changed_is_refused_and_changes_nothing(world):
    with world.store.write() as tx:
        first = tx.models.update(world.model.id, 1, name="first")
    with pytest.raises(StaleVersion, match="has version 2, not 1"), world.store.write() as tx:
        tx.models.update(world.model.id, 1, name="second")
    with pytest.raises(StaleVersion), world.store.write() as tx:
        tx.models.delete(world.model.id, 1)
    with world.store.read() as tx:
        assert tx.models.get(world.model.id) == first


def test_without_an_expected_version_the_last_change_wins(world):
    with world.store.write() as tx:
        tx.models.update(world.model.id, name="a")
        assert tx.models.update(world.model.id, name="b").version == 3


@pytest.mark.parametrize("field", ["project_id", "created_at", "created_by", "version"])
def test_what_a_thing_is_cannot_be_changed(world, field):
    with pytest.raises(AssertionError, match="cannot be changed"), world.store.write() as tx:
        tx.models.update(world.model.id, **{field: "x"})


def test_a_name_is_taken_once_in_a_project_and_free_in_another(world):
    with pytest.raises(AlreadyExists, match="model 'B/32' already exists"), world.store.write() as tx:
        tx.models.add(world.another_model("B/32"))
    with world.store.write() as tx:
        tx.models.add(world.another_model("L/14"))
    with pytest.raises(AlreadyExists, match="L/14"), world.store.write() as tx:
        tx.models.update(world.model.id, name="L/14")
    with world.store.write() as tx:
        project = tx.projects.add(Project(new_id("prj"), "Other", world.project.created_at))
        tx.models.add(dataclasses.replace(world.another_model("B/32"), project_id=project.id))


def test_after_a_refused_name_the_transaction_goes_on(world):
    with world.store.write() as tx:
        with pytest.raises(AlreadyExists):
            tx.images.add(world.another_image(sha256=world.image.sha256))
        assert tx.images.by_sha256(world.project.id, world.image.sha256) == world.image
        tx.images.update(world.image.id, filename="renamed.png")
    with world.store.read() as tx:
        assert tx.images.get(world.image.id).filename == "renamed.png"


def test_a_deleted_thing_is_hidden_everywhere_and_its_name_is_free_again(world):
    with world.store.write() as tx:
        tx.images.delete(world.image.id, expected_version=1)
    with world.store.write() as tx:
        with pytest.raises(UnknownImage):
            tx.images.get(world.image.id)
        with pytest.raises(UnknownImage):
            tx.images.update(world.image.id, filename="x")
        with pytest.raises(UnknownImage):
            tx.images.delete(world.image.id)
        assert tx.images.by_sha256(world.project.id, world.image.sha256) is None
        assert tx.images.list(world.project.id).items == ()
        again = tx.images.add(world.another_image(sha256=world.image.sha256))
        assert tx.images.by_sha256(world.project.id, world.image.sha256) == again


def test_a_deleted_thing_can_be_restored_unless_its_name_was_taken(world):
    with world.store.write() as tx:
        with pytest.raises(UnknownModel):
            tx.models.deleted(world.model.id)
        tx.models.delete(world.model.id)
        assert tx.models.deleted(world.model.id) == dataclasses.replace(world.model, version=2)
        assert tx.models.restore(world.model.id) == dataclasses.replace(world.model, version=3)
        tx.models.delete(world.model.id)
        tx.models.add(world.another_model(world.model.name))
        with pytest.raises(AlreadyExists):
            tx.models.restore(world.model.id)
        with pytest.raises(UnknownModel):
            tx.models.restore("mdl_nothere")
        for strange in ("mdl_nothere", "mdl_\x00", "mdl_é"):
            with pytest.raises(UnknownModel):
                tx.models.deleted(strange)


def test_lists_are_filtered_by_fields_and_by_nothing_else(world):
    with world.store.write() as tx:
        tx.models.add(
            dataclasses.replace(world.another_model("L"), state="failed", info=None, error="no file")
        )
    with world.store.read() as tx:
        assert [m.name for m in tx.models.list(world.project.id, state="failed").items] == ["L"]
        assert [m.name for m in tx.models.list(world.project.id, state=None).items] == ["L", "B/32"]
        assert tx.models.list("prj_other").items == ()
        assert [s.name for s in tx.saes.list(world.project.id, model_id=world.model.id).items] == ["mid"]
        for name in ("ref", "deleted_at", "nothing", "name; DROP TABLE users"):
            with pytest.raises(InvalidRequest, match="cannot be filtered"):
                tx.models.list(world.project.id, **{name: "x"})
