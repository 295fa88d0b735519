import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fulcrum
from fulcrum.domain.errors import AlreadyRunning, CorruptFile, InvalidSettings
from fulcrum.local.data_folder import MAX_SOCKET_PATH, DataFolder, read_owner, write_client_file
from fulcrum.store.artifacts import open_artifacts
from fulcrum.store.database import migrate, open_store


def test_a_second_user_of_the_folder_is_refused_with_who_and_where(tmp_path):
    with DataFolder(tmp_path / "data") as first:
        first.set_owner("http://127.0.0.1:8080")
        with pytest.raises(
            AlreadyRunning, match=rf"process {os.getpid()}, serving http://127.0.0.1:8080.*--data-dir"
        ):
            DataFolder(tmp_path / "data")
    with DataFolder(tmp_path / "data"):
        pass


def test_another_process_is_refused_too(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from fulcrum.domain.errors import AlreadyRunning\nfrom fulcrum.local.data_folder import DataFolder\n"
        "try: DataFolder(Path(sys.argv[1]))\nexcept AlreadyRunning: print('refused')\n"
    )
    with DataFolder(tmp_path / "data") as data:
        data.set_owner(None)
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "data")],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": str(Path(fulcrum.__file__).parents[1])},
        )
    assert done.stdout == "refused\n"


def test_what_is_kept_survives_and_what_is_private_is(tmp_path):
    with DataFolder(tmp_path / "data") as first:
        kept = first.secrets
    with DataFolder(tmp_path / "data") as second:
        assert second.secrets == kept
    assert len({kept.redis_password, kept.inference_token}) == 2
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_damaged_secrets_are_named(tmp_path):
    DataFolder(tmp_path).close()
    (tmp_path / "secrets.json").write_text("{")
    with pytest.raises(CorruptFile, match=r"secrets.json.*delete it"):
        DataFolder(tmp_path)
    (tmp_path / "secrets.json").unlink()
    DataFolder(tmp_path).close()  # the refused one had given its lock back


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSettings, match="data-dir"):
        DataFolder(tmp_path / "file")


@pytest.mark.parametrize("name", ["d" * 120, "a name, with a comma"])
def test_sockets_of_long_or_odd_folders_get_a_short_plain_one_of_their_own(tmp_path, name):
    with DataFolder(tmp_path / name) as data:
        path = data.socket("inference")
        assert len(os.fsencode(path)) <= MAX_SOCKET_PATH
        assert "," not in str(path)
        assert " " not in str(path)
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.parent.exists()


def test_sockets_left_by_a_killed_supervisor_are_removed_by_the_next(tmp_path):
    folder = tmp_path / ("d" * 120)
    killed = DataFolder(folder)
    killed.socket("redis").touch()
    os.close(killed.lock)  # as the kernel does
    with DataFolder(folder):
        assert not killed.sockets.exists()


def test_the_owner_of_a_closed_folder_is_nobody(tmp_path):
    with DataFolder(tmp_path) as data:
        data.set_owner("http://127.0.0.1:8081")
        assert read_owner(tmp_path) == {"pid": os.getpid(), "url": "http://127.0.0.1:8081"}
    assert read_owner(tmp_path) == {}


def test_the_client_file_is_readable_by_its_user_alone(tmp_path):
    path = tmp_path / "new" / "client.json"
    path.parent.mkdir()
    path.write_text("old")
    path.chmod(0o644)
    write_client_file(path, "http://127.0.0.1:8080", "fct_1_2")
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == {"url": "http://127.0.0.1:8080", "token": "fct_1_2"}
    assert [p.name for p in path.parent.iterdir()] == ["client.json"]


@pytest.mark.parametrize("name", ["run #2", "what?", "100%41", 'a"b\\c', "größe"])
def test_records_and_artifacts_lie_in_the_folder_whatever_its_name(tmp_path, name):
    with DataFolder(tmp_path / name) as data:
        migrate(data.database_url)
        with open_store(data.database_url) as store:
            store.ping()
        open_artifacts(data.artifacts_url).put_bytes(b"x")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "store.sqlite").is_file()
    assert [p.name for p in (tmp_path / name / "artifacts").iterdir() if p.is_dir() and len(p.name) == 2]
