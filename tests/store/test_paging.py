"""Pages: all items once, newest first, whatever is added meanwhile."""

import base64
import itertools
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulcrum.domain.errors import InvalidRequest
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import Project, SessionEntry

FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def all_pages(list_page, limit):
    items, cursor = [], None
    while True:
        page = list_page(limit=limit, cursor=cursor)
        assert len(page.items) <= limit
        items += page.items
        cursor = page.next_cursor
        if cursor is None:
            return items


@FEW
@given(ages=st.lists(st.integers(0, 5), max_size=12), limit=st.integers(1, 5))
def test_pages_together_are_all_items_newest_first_also_with_equal_times(world, ages, limit):
    # Few different times, so that pages often end between items of the same time.
    with world.store.write() as tx:
        project = tx.projects.add(Project(new_id("prj"), new_id("name"), now()))
        images = [
            tx.images.add(
                world.another_image(project_id=project.id, created_at=now().replace(microsecond=0, second=s))
            )
            for s in ages
        ]
    with world.store.read() as tx:
        found = all_pages(lambda **page: tx.images.list(project.id, **page), limit)
    assert found == sorted(images, key=lambda i: (i.created_at, i.id), reverse=True)


def test_a_page_goes_on_where_the_last_one_ended_when_items_come_and_go(world):
    at = now()
    with world.store.write() as tx:
        project = tx.projects.add(Project(new_id("prj"), "paged", at))
        images = [
            tx.images.add(world.another_image(project_id=project.id, created_at=at + timedelta(seconds=n)))
            for n in range(6)
        ]
        first = tx.images.list(project.id, limit=3)
        tx.images.add(world.another_image(project_id=project.id, created_at=at + timedelta(seconds=99)))
        tx.images.delete(images[3].id)  # the one that the cursor stands on
        second = tx.images.list(project.id, limit=3, cursor=first.next_cursor)
    assert [*first.items, *second.items] == images[::-1]
    assert second.next_cursor is None


def test_versions_entries_members_and_audit_lines_are_paged_too(world):
    w = world
    with w.store.write() as tx:
        for n in range(5):
            entry = SessionEntry(new_id("ent"), w.session.id, "note", {"n": n}, w.user.id, now())
            tx.sessions.add_entry(entry)
            tx.audit.append(w.user.id, "act", f"s{n}")
    with w.store.read() as tx:
        entries = all_pages(lambda **page: tx.sessions.entries(w.session.id, **page), 2)
        assert [e.content.get("n") for e in entries] == [4, 3, 2, 1, 0, None]
        lines = all_pages(lambda **page: tx.audit.list(**page), 2)
        assert [e.sequence for e in lines] == [5, 4, 3, 2, 1]


GARBAGE = ["", "x", "\x00", "ä", "null", "e30", "W10", "A" * 5000, "WyIyMDI2LTAxLTAxIl0"] + [
    base64.urlsafe_b64encode(text.encode()).decode()
    for text in (
        '["image", "yesterday", "x"]',
        '["image", "0001-01-01T00:00:00+14:00", "x"]',
        '["image", "2026-01-01T00:00:00+00:00", "\\u0000"]',
        '["member", "\\ud800", "x"]',
        '["audit event", 1e999]',
        '["audit event", true]',
        f'["audit event", {10**30}]',
        "[" * 3000,
    )
]


def test_a_cursor_that_was_not_given_out_is_refused_by_every_list(world):
    w = world
    with w.store.write() as tx:
        tx.projects.add(Project(new_id("prj"), "another", now()))
        from_another_list = tx.projects.list(limit=1).next_cursor
        lists = [
            lambda **page: tx.images.list(w.project.id, **page),
            lambda **page: tx.sessions.entries(w.session.id, **page),
            lambda **page: tx.corrections.versions(w.correction.id, **page),
            lambda **page: tx.members.list(w.project.id, **page),
            lambda **page: tx.users.list(**page),
            lambda **page: tx.audit.list(**page),
        ]
        for cursor in [*GARBAGE, from_another_list]:
            for listed in lists:
                with pytest.raises(InvalidRequest, match="cursor"):
                    listed(cursor=cursor)


def test_a_limit_outside_its_range_is_refused(world):
    with world.store.read() as tx:
        for listed, limit in itertools.product(
            (tx.images.list, tx.audit.list, tx.members.list), (0, -1, 1001)
        ):
            with pytest.raises(InvalidRequest, match="limit"):
                listed(limit=limit)
