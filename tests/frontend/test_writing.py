"""Who may only read a project finds the buttons that would change it disabled, with why and what to do."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import fulcrum_ui
from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.domain.identifiers import now
from fulcrum.domain.records import Member, Project, User
from fulcrum_ui import visitor
from fulcrum_ui.parts import people

FOLDER = Path(fulcrum_ui.__file__).parent
PROJECT = Project("prj_1", "stickers", now())
# What a click on each of these would have the gateway do takes a role.
WRITING = (
    "Save", "Delete", "Rename", "Add", "Upload", "Import", "Train", "Describe", "Validate", "Dose-response",
    "Try all pairs", "Find experts", "Cancel", "Save correction", "Save as set…", "Save all of this filter…",
    "Take out of this set", "Validate again with it", "What moved in them", "Hold me to it",
    "Write the outcome into the log",
)  # fmt: skip


@dataclass
class Person:
    """A visitor, as far as roles go."""

    role: str | None
    project: Project | None = PROJECT

    def role_in(self, project_id):
        assert project_id == PROJECT.id
        if self.role == "unknown":
            raise ServiceUnavailable("the gateway restarts")
        return self.role


@pytest.mark.parametrize("role", ["viewer", "analyst", "reviewer", "admin"])
@pytest.mark.parametrize("needed", ["analyst", "reviewer", "admin"])
def test_each_role_may_what_the_ones_before_it_may(role, needed):
    order = ["viewer", "analyst", "reviewer", "admin"]
    enough = order.index(role) >= order.index(needed)
    assert people.missing_role(Person(role), needed) == (None if enough else role)
    assert people.may_write(Person(role)) is (role != "viewer")


@pytest.mark.parametrize("who", [Person("viewer", None), Person(None), Person("unknown")])
def test_where_the_role_is_not_known_nobody_is_kept_from_asking_the_gateway(who):
    assert people.may_write(who)


class Gateway:
    """A platform on which the visitor has a role that may change."""

    role = "viewer"
    is_admin = False

    def client(self, url, login, timeout_s, retries, project_id):
        gateway = self

        class Projects:
            def list(self):
                return iter((PROJECT,))

            def member(self, project, user):
                return Member(PROJECT.id, "usr_1", gateway.role)

        class Client:
            projects = Projects()

            def me(self):
                return User("usr_1", "Ada", now(), is_admin=gateway.is_admin)

        return Client()


@pytest.fixture
def gateway(monkeypatch):
    found = Gateway()
    monkeypatch.setattr(visitor, "Client", found.client)
    cached = (visitor._client, visitor._visitor_data, visitor._role)
    for answers in cached:
        answers.clear()
    yield found
    for answers in cached:
        answers.clear()


def script():
    import streamlit as st

    from fulcrum_ui.parts.writing import read_only_mark, write_button, write_submit
    from fulcrum_ui.visitor import visitor

    read_only_mark(visitor())
    write_button("Save", key="save", help="Under this name")
    write_button("Validate", place=st.container(), key="empty", disabled=True, help="No correction yet")
    with st.form("model"):
        write_submit("Add", needed="admin")


def shown():
    app = AppTest.from_function(script, default_timeout=30)
    app.session_state["login"] = "log_1.secret"
    app.run()
    assert not app.exception
    return app, {b.label: b for b in app.button}


def test_a_viewer_sees_the_buttons_disabled_and_reads_why_and_what_to_do(gateway):
    app, buttons = shown()
    assert all(b.disabled for b in buttons.values())
    said = "You look at this project as a viewer: an administrator can give you the role analyst."
    assert buttons["Save"].help == buttons["Validate"].help == said
    assert buttons["Add"].help.endswith("the role admin.")
    assert any("reading only" in str(h.proto.body) for h in app.get("html"))


def test_an_analyst_writes_but_adds_no_model(gateway):
    gateway.role = "analyst"
    app, buttons = shown()
    assert [b.label for b in buttons.values() if not b.disabled] == ["Save"]
    assert (buttons["Save"].help, buttons["Validate"].help) == ("Under this name", "No correction yet")
    assert buttons["Add"].help.startswith("You work in this project as an analyst")
    assert app.get("html") == []


def test_an_administrator_of_the_platform_may_do_everything_everywhere(gateway):
    gateway.is_admin = True
    _, buttons = shown()
    assert [b.label for b in buttons.values() if b.disabled] == ["Validate"]


def test_no_view_draws_a_plain_button_for_what_takes_a_role():
    words = "|".join(re.escape(w) for w in WRITING)
    plain = re.compile(rf'(?<!write_)\b(?:button|form_submit_button)\(\s*"(?:{words})"')
    found = [
        f"{p.name}: {match.group()}" for p in FOLDER.rglob("*.py") for match in plain.finditer(p.read_text())
    ]
    assert found == []
    asked = re.compile(rf'\bwrite_(?:button|submit)\(\s*"({words})"')
    drawn = {m.group(1) for p in FOLDER.rglob("*.py") for m in asked.finditer(p.read_text())}
    assert drawn == set(WRITING)
