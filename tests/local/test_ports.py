import socket

import pytest

from fulcrum.domain.errors import AlreadyRunning, InvalidSettings
from fulcrum.local import ports


@pytest.fixture
def taken():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(taken):
    with pytest.raises(AlreadyRunning, match=rf"port {taken} of 127.0.0.1 is taken.*--port"):
        ports.choose_port("127.0.0.1", taken)


def test_the_next_free_port_is_taken_where_none_was_asked_for(taken, monkeypatch):
    monkeypatch.setattr(ports, "DEFAULT_PORT", taken)
    assert taken < ports.choose_port("127.0.0.1", None) < taken + 50


def test_all_ports_taken_is_an_error(taken, monkeypatch):
    monkeypatch.setattr(ports, "DEFAULT_PORT", taken)
    monkeypatch.setattr(ports, "_N_TRIED", 1)
    with pytest.raises(AlreadyRunning, match="--port"):
        ports.choose_port("127.0.0.1", None)


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host.invalid"])
def test_a_host_that_is_not_ours_is_refused(host):
    with pytest.raises(InvalidSettings, match="host"):
        ports.choose_port(host, 8080)


@pytest.mark.parametrize(
    ("host", "inside"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("192.168.1.4", False)],
)
def test_what_only_this_machine_can_reach_is_known(host, inside):
    assert ports.is_loopback(host) == inside
