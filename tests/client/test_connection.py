import json

import pytest

from fulcrum.client.connection import Address, Connection, clean_url, client_file, find_address
from fulcrum.domain.errors import InvalidSettings

HERE, ELSEWHERE = "http://127.0.0.1:8080", "https://lab.example"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "client.json"
    path.write_text(json.dumps({"url": HERE, "token": "fct_file"}))
    return path


def found(url=None, token=None, file=None, **environ):
    names = {f"FULCRUM_CLIENT_{k}": v for k, v in environ.items()}
    return find_address(url, token, {"FULCRUM_CLIENT_FILE": str(file or "/nowhere"), **names})


def test_arguments_come_before_the_environment_and_that_before_the_file(file):
    assert found(ELSEWHERE, "fct_a", file, URL=HERE, TOKEN="fct_e") == Address(ELSEWHERE, "fct_a")
    assert found(None, None, file, URL=ELSEWHERE, TOKEN="fct_e") == Address(ELSEWHERE, "fct_e")
    assert found(None, None, file) == Address(HERE, "fct_file")
    assert found(None, "fct_a", file) == Address(HERE, "fct_a")


def test_the_token_of_one_gateway_is_never_shown_to_another(file):
    assert found(ELSEWHERE, None, file) == Address(ELSEWHERE, None)
    assert found(None, None, file, URL=ELSEWHERE) == Address(ELSEWHERE, None)
    assert found(ELSEWHERE, None, file, URL=HERE, TOKEN="fct_e") == Address(ELSEWHERE, None)


def test_a_token_that_stands_alone_is_for_the_gateway_that_is_named(file):
    assert found(ELSEWHERE, None, file, TOKEN="fct_e") == Address(ELSEWHERE, "fct_e")


def test_the_same_gateway_written_with_a_slash_gets_its_token(file):
    assert found(HERE + "/", None, file).token == "fct_file"


def test_nothing_at_all_says_what_to_do():
    with pytest.raises(InvalidSettings, match="fulcrum up"):
        found()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"url": 3}', '{"url": "nowhere"}'])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "client.json"
    path.write_text(content)
    with pytest.raises(InvalidSettings):
        found(None, None, path)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x", "http://", "http://x/?a=1", "http://me:secret@x", "unix:/tmp/s"]
)
def test_what_is_no_address_of_a_gateway_is_refused(url):
    with pytest.raises(InvalidSettings):
        clean_url(url)


def test_a_prefix_behind_a_proxy_stays():
    assert clean_url(" https://lab.example/fulcrum/ ") == "https://lab.example/fulcrum"


def test_a_token_is_never_printed():
    address = Address(HERE, "fct_secret")
    assert "fct_secret" not in repr(address)
    assert "fct_secret" not in repr([address])


@pytest.mark.parametrize("token", ["", "a\nb", "a b\t", "schlüssel"])
def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(token):
    with pytest.raises(InvalidSettings) as caught:
        Address(HERE, token)
    assert not token or token not in str(caught.value)


def test_the_file_may_be_elsewhere():
    assert client_file({"FULCRUM_CLIENT_FILE": "/a/b.json"}).as_posix() == "/a/b.json"
    assert client_file({}).as_posix().endswith("/.fulcrum/client.json")


def test_a_file_that_changed_is_read_again(file, monkeypatch):
    monkeypatch.setenv("FULCRUM_CLIENT_FILE", str(file))
    connection = Connection()
    assert not connection.renew()
    file.write_text(json.dumps({"url": HERE, "token": "fct_next"}))
    assert connection.renew()
    assert connection.address.token == "fct_next"
    file.unlink()
    assert not connection.renew()
    assert connection.address.token == "fct_next"


def test_what_was_given_as_an_argument_stays(file, monkeypatch):
    monkeypatch.setenv("FULCRUM_CLIENT_FILE", str(file))
    connection = Connection(HERE, "fct_mine")
    file.write_text(json.dumps({"url": HERE, "token": "fct_next"}))
    assert not connection.renew()


def test_a_login_asks_as_itself_and_never_with_a_token_of_this_machine(file, monkeypatch):
    monkeypatch.setenv("FULCRUM_CLIENT_FILE", str(file))
    monkeypatch.setenv("FULCRUM_CLIENT_TOKEN", "fct_machine")
    for login in ("log_01.ab", ""):
        connection = Connection(HERE, None, login)
        assert connection.address == Address(HERE, None, login)
        assert not connection.renew()
        assert connection.address.token is None
    assert "log_01" not in repr(Address(HERE, None, "log_01.ab"))


def test_a_login_needs_its_gateway_and_no_token():
    with pytest.raises(InvalidSettings, match="pass its url"):
        Connection(None, None, "log_01.ab")
    with pytest.raises(InvalidSettings, match="not both"):
        Connection(HERE, "fct_a", "log_01.ab")
    with pytest.raises(InvalidSettings, match="no session cookie"):
        Connection(HERE, None, "a; fulcrum_session=b")
