"""Ports for the gateway and the web interface."""

import errno
import socket

from fulcrum.domain.errors import AlreadyRunning, InvalidSettings

DEFAULT_PORT, FIRST_FRONTEND_PORT = 8080, 8501
_N_TRIED = 50


def choose_port(host: str, port: int | None, first: int | None = None) -> int:
    """`port`, or the first free one from `first` (None: 8080) on where None is asked for.

    Raises AlreadyRunning where the port that was asked for is taken, InvalidSettings for a host that is not ours.
    """
    if port is not None:
        if not _is_free(host, port):
            raise AlreadyRunning(
                f"port {port} of {host} is taken by another program: choose another with --port, or leave it out"
            )
        return port
    first = DEFAULT_PORT if first is None else first
    for candidate in range(first, first + _N_TRIED):
        if _is_free(host, candidate):
            return candidate
    last = first + _N_TRIED - 1
    raise AlreadyRunning(f"all ports from {first} to {last} of {host} are taken: choose one with --port")


def _is_free(host: str, port: int) -> bool:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, OverflowError) as error:
        raise InvalidSettings(f"host {host!r} is not known: {error}") from error
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: a port in TIME_WAIT is free, one that somebody listens on is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except PermissionError as error:
            raise InvalidSettings(
                f"port {port} may not be used by this user: choose one from 1024 on"
            ) from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise InvalidSettings(f"host {host!r} is no address of this machine: {error.strerror}") from error
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    return host == "localhost" or host == "::1" or host.startswith("127.")
