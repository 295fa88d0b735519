"""`fulcrum gateway --prepare`: from an empty database to a person who can log in, where services run apart."""

import json

import pytest

from fulcrum.cli.main import run
from fulcrum.gateway.auth.service import redeem_link
from fulcrum.store.database import open_store


@pytest.fixture
def prepare(capsys, monkeypatch):
    """Runs it on a database; returns exit status and what it printed."""

    def call(url, *options):
        monkeypatch.setenv("FULCRUM_GATEWAY_DATABASE_URL", url)
        try:
            run(["gateway", "--prepare", *options])
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        return status, capsys.readouterr().out

    return call


def test_an_empty_database_gets_its_tables_and_somebody_who_can_log_in(prepare, tmp_path):
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    status, said = prepare(url, "--port", "9000", "--json")
    assert status == 0
    link = json.loads(said)["login_link"]
    assert link.startswith("http://127.0.0.1:9000/login?link=lnk_")
    with open_store(url) as store:
        store.ping()
        assert redeem_link(store, link.partition("link=")[2], 1.0).user.is_admin
    status, said = prepare(url)
    assert status == 0
    assert "admin logs in (once)" in said
    assert "\n   http://127.0.0.1:8080/login?link=lnk_" in said


def test_settings_that_cannot_be_meant_are_one_clear_line(prepare, monkeypatch):
    status, said = prepare("mysql://nobody", "--json")
    assert (status, json.loads(said)["error"]["reason"]) == (2, "INVALID_SETTINGS")
    monkeypatch.setenv("FULCRUM_GATEWAY_LOG_LEVEL", "LOUD")
    status, said = prepare("sqlite:///x.db", "--json")
    assert status == 2
    assert "log_level" in json.loads(said)["error"]["message"]
