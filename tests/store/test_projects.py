"""Projects and roles."""

import pytest

from fulcrum.domain.errors import Conflict, InvalidRequest, UnknownProject, UnknownUser
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import Member, Project, User


def test_a_role_is_set_changed_and_taken_away(world):
    p, bob = world.project.id, world.other.id
    with world.store.write() as tx:
        assert tx.members.role(p, bob) is None
        tx.members.put(Member(p, bob, "viewer"))
        assert tx.members.role(p, bob) == "viewer"
        tx.members.put(Member(p, bob, "reviewer"))
        assert tx.members.role(p, bob) == "reviewer"
        assert {m.role for m in tx.members.list(p).items} == {"admin", "reviewer"}
        assert tx.members.list(user_id=bob).items == (Member(p, bob, "reviewer"),)
        tx.members.delete(p, bob)
        assert tx.members.role(p, bob) is None
        with pytest.raises(UnknownUser, match="no member"):
            tx.members.delete(p, bob)


@pytest.mark.parametrize("role", ["viewer", "analyst", "reviewer"])
def test_the_last_admin_of_a_project_stays(world, role):
    p, anne, bob = world.project.id, world.user.id, world.other.id
    with world.store.write() as tx:
        tx.members.put(Member(p, bob, role))
        with pytest.raises(Conflict, match="last admin"):
            tx.members.put(Member(p, anne, role))
        with pytest.raises(Conflict, match="last admin"):
            tx.members.delete(p, anne)
        tx.members.put(Member(p, anne, "admin"))
        tx.members.put(Member(p, bob, "admin"))
        tx.members.put(Member(p, anne, role))
        assert (tx.members.role(p, anne), tx.members.role(p, bob)) == (role, "admin")


def test_the_first_member_need_not_be_an_admin(world):
    with world.store.write() as tx:
        project = tx.projects.add(Project(new_id("prj"), "new", now()))
        tx.members.put(Member(project.id, world.other.id, "viewer"))
        tx.members.delete(project.id, world.other.id)


def test_members_are_users_and_projects_that_exist(world):
    with world.store.write() as tx:
        with pytest.raises(UnknownUser):
            tx.members.put(Member(world.project.id, "usr_none", "viewer"))
        with pytest.raises(UnknownProject):
            tx.members.put(Member("prj_none", world.other.id, "viewer"))
        with pytest.raises(InvalidRequest, match="owner"):
            tx.members.put(Member(world.project.id, world.other.id, "owner"))
        tx.users.delete(world.other.id)
        with pytest.raises(UnknownUser):
            tx.members.put(Member(world.project.id, world.other.id, "viewer"))


def test_nobody_has_a_role_in_a_deleted_project(world):
    with world.store.write() as tx:
        tx.projects.delete(world.project.id)
        assert tx.members.role(world.project.id, world.user.id) is None
        assert tx.projects.of_user(world.user.id).items == ()
        with pytest.raises(UnknownProject):
            tx.members.put(Member(world.project.id, world.other.id, "viewer"))


def test_a_user_sees_the_projects_they_are_a_member_of(world):
    with world.store.write() as tx:
        second = tx.projects.add(Project(new_id("prj"), "second", now()))
        tx.projects.add(Project(new_id("prj"), "third", now()))
        carl = tx.users.add(User(new_id("usr"), "Carl", now()))
        tx.members.put(Member(second.id, world.user.id, "viewer"))
        assert tx.projects.of_user(world.user.id).items == (second, world.project)
        assert tx.projects.of_user(carl.id).items == ()
        assert len(tx.projects.list().items) == 3
