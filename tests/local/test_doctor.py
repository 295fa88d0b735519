import importlib.util
import socket
import sys

import pytest

from fulcrum.local import doctor
from fulcrum.local.data_folder import DataFolder
from fulcrum.local.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "data", client_file=tmp_path / "client.json")


def found(settings, name):
    (finding,) = [f for f in doctor.examine(settings, {}) if f.name == name]
    return finding


def test_this_machine_can_run_it(settings):
    findings = doctor.examine(settings, {})
    assert [f for f in findings if f.verdict == "problem"] == []
    assert found(settings, "data folder").message.endswith("will be made by the first start")
    assert not settings.data_dir.exists()  # a look changes nothing


def test_a_missing_package_is_named_with_the_command_that_brings_it(settings, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "fastapi" else real(name, *a)
    )
    finding = found(settings, "packages: gateway")
    assert finding.verdict == "problem"
    assert "fastapi" in finding.message
    assert "uv sync --extra gateway" in finding.remedy


def test_a_taken_port_and_a_folder_in_use_are_found(settings, tmp_path):
    with socket.socket() as server, DataFolder(settings.data_dir) as data:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert (
            found(Settings(port=port, data_dir=tmp_path, client_file=tmp_path / "c"), "port").verdict
            == "problem"
        )
        data.set_owner(None)
        assert "already runs" in found(settings, "data folder").message
        data.set_owner(f"http://127.0.0.1:{port}")
        server.close()
        assert "in use" in found(settings, "data folder").message


def test_a_folder_of_other_things_is_looked_at_only(settings):
    settings.data_dir.mkdir()
    (settings.data_dir / "thesis.tex").touch()
    assert found(settings, "data folder").verdict == "ok"
    assert [p.name for p in settings.data_dir.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_data_folder(settings):
    settings.data_dir.touch()
    assert found(settings, "data folder").verdict == "problem"


def test_a_token_that_others_can_read_is_a_problem(settings):
    settings.client_file.write_text("{}")
    settings.client_file.chmod(0o644)
    assert found(settings, "client").verdict == "problem"
    settings.client_file.chmod(0o600)
    assert found(settings, "client").verdict == "ok"


def test_a_named_redis_that_is_away_is_a_problem(settings, tmp_path):
    away = Settings(
        data_dir=settings.data_dir,
        client_file=settings.client_file,
        redis_url=f"unix://{tmp_path / 'none.sock'}",
    )
    assert found(away, "redis").verdict == "problem"


def test_versions_name_what_answers_depend_on():
    assert {"torch", "open_clip_torch", "numpy"} <= set(doctor.versions())


def test_a_look_that_needs_a_missing_package_stops_no_other_look(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    names = [f.name for f in doctor.examine(settings, {})]
    assert "not looked at" in names
    assert names[-1] == "client"
