"""Which project the pages ask for: the one in the address, else the one chosen before, else one's own."""

import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import fulcrum_ui
from fulcrum.domain.errors import UnknownProject, UnknownUser
from fulcrum.domain.identifiers import now
from fulcrum.domain.records import Member, Project, User
from fulcrum_ui import visitor
from fulcrum_ui.projects import choose

FOLDER = Path(fulcrum_ui.__file__).parent
NEW, OWN, OLD = (Project(f"prj_{word}", word, now()) for word in ("birds", "stickers", "archive"))


def test_the_address_comes_first_then_what_was_chosen_then_ones_own():
    seen = (NEW, OWN, OLD)
    assert choose("prj_birds", "prj_archive", seen, "prj_stickers") == NEW
    assert choose(None, "prj_archive", seen, "prj_stickers") == OLD
    assert choose(None, None, seen, "prj_stickers") == OWN
    assert choose(None, "prj_left", seen, "prj_gone") == OLD  # taken out of both meanwhile
    assert choose(None, None, (), None) is None


def test_an_address_of_a_project_that_one_does_not_see_is_refused():
    with pytest.raises(UnknownProject, match="prj_secret"):
        choose("prj_secret", "prj_birds", (NEW, OWN), None)


class Listed:
    """A resource without anything; `asked` is told the project of each list."""

    def __init__(self, asked, project_id):
        self._asked, self._project_id = asked, project_id

    def list(self, **_):
        self._asked.append(self._project_id)
        return iter(())


class Gateway:
    """A platform that two projects are seen of."""

    user = User("usr_1", "Ada", now())
    projects_seen = (NEW, OWN)

    def __init__(self):
        self.asked = []

    def client(self, url, login, timeout_s, retries, project_id):
        gateway = self

        class Projects:
            def list(self):
                return iter(gateway.projects_seen)

            def member(self, project, user):
                if gateway.user.is_admin and project == NEW:
                    raise UnknownUser("no member")
                return Member(getattr(project, "id", project), "usr_1", "analyst")

        class Client:
            projects = Projects()
            saes = datasets = images = corrections = evaluations = jobs = Listed(gateway.asked, project_id)

            def me(self):
                return gateway.user

        return Client()


@pytest.fixture
def gateway(monkeypatch):
    found = Gateway()
    monkeypatch.setattr(visitor, "Client", found.client)
    for cached in (visitor._client, visitor._visitor_data, visitor._role):
        cached.clear()
    yield found
    for cached in (visitor._client, visitor._visitor_data, visitor._role):
        cached.clear()


def opened(**query):
    app = AppTest.from_file(str(FOLDER / "app.py"), default_timeout=30)
    app.session_state["login"] = "log_1.secret"
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def in_address(app):
    found = app.query_params.get("project")
    return found[0] if isinstance(found, list) else found


def test_who_sees_one_project_is_not_bothered(gateway):
    gateway.projects_seen = (OWN,)
    app = opened()
    assert list(app.sidebar.selectbox) == []
    assert in_address(app) is None
    assert set(gateway.asked) == {None}  # the gateway's own choice


def test_every_list_is_of_the_project_in_the_address(gateway):
    app = opened(project="prj_birds")
    assert app.sidebar.selectbox[0].value == NEW
    assert set(gateway.asked) == {"prj_birds"}
    assert in_address(app) == "prj_birds"


def test_without_one_in_the_address_it_is_the_oldest_and_stands_there(gateway):
    app = opened()
    assert set(gateway.asked) == {"prj_stickers"}
    assert in_address(app) == "prj_stickers"


def test_an_administrator_starts_in_a_project_of_their_own(gateway):
    gateway.user = User("usr_1", "Ada", now(), is_admin=True)
    gateway.projects_seen = (OWN, NEW)  # NEW is the oldest one, and others work in it
    assert in_address(opened()) == "prj_stickers"


def test_another_project_is_chosen_and_kept_and_what_was_remembered_is_not(gateway):
    app = opened()
    app.session_state["_remembered"] = {}
    app.session_state["concept-words"] = "a red sticker"
    app.session_state["tour"] = 3
    gateway.asked.clear()
    app.sidebar.selectbox[0].select(NEW).run()
    assert not app.exception
    assert set(gateway.asked) == {"prj_birds"}
    assert in_address(app) == "prj_birds"
    assert "concept-words" not in app.session_state
    assert app.session_state["tour"] == 3
    del app.query_params["project"]  # as a click on another page does
    gateway.asked.clear()
    app.run()
    assert set(gateway.asked) == {"prj_birds"}
    assert in_address(app) == "prj_birds"


def test_an_address_of_a_foreign_project_is_said_and_other_pages_stay_within_reach(gateway):
    app = opened(project="prj_secret")
    assert any("not here" in card.value for card in app.subheader)
    assert any("prj_secret" in text.value for text in app.text)
    assert gateway.asked == []
    del app.query_params["project"]
    app.run()
    assert set(gateway.asked) == {"prj_stickers"}


def test_no_view_writes_an_address_without_the_project():
    forgetful = re.compile(r"query_params\.(clear|from_dict)\(")
    allowed = {"go.py", "projects.py"}
    found = [
        p.name for p in FOLDER.rglob("*.py") if forgetful.search(p.read_text()) and p.name not in allowed
    ]
    assert found == []
