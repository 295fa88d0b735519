"""Where the service listens, and who may connect: addresses, sockets, certificates."""

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from fulcrum.domain.errors import InvalidSettings
from fulcrum.inference.settings import Settings

UNIX = "unix:"
_MAX_SOCKET_PATH = 107  # bytes in sockaddr_un before the closing zero


def check_address(settings: Settings) -> None:
    """Raises InvalidSettings for an address that cannot be bound, or one that would let everybody in."""
    address = settings.address
    if address.startswith(UNIX):
        path = address.removeprefix(UNIX)
        if not path or len(os.fsencode(path)) > _MAX_SOCKET_PATH:
            raise InvalidSettings(
                f"socket path {path!r} has {len(os.fsencode(path))} bytes: 1 to {_MAX_SOCKET_PATH} are allowed"
            )
        if not Path(path).parent.is_dir():
            raise InvalidSettings(f"the folder of socket {path!r} does not exist")
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise InvalidSettings(f"address {address!r}: expected 'HOST:PORT' or 'unix:/PATH'")
    if not _is_loopback(host) and settings.token is None and settings.tls_client_ca is None:
        raise InvalidSettings(
            f"address {address!r} is reachable from other machines: set FULCRUM_INFERENCE_TOKEN, or "
            "FULCRUM_INFERENCE_TLS_CLIENT_CA for mutual TLS"
        )


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """None without TLS. Raises InvalidSettings for half of a pair or a file that cannot be read."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise InvalidSettings("tls_cert and tls_key belong together: one of them is missing")
    if settings.tls_cert is None or settings.tls_key is None:
        if settings.tls_client_ca is not None:
            raise InvalidSettings("tls_client_ca needs tls_cert and tls_key")
        return None
    authority = None if settings.tls_client_ca is None else _read(settings.tls_client_ca)
    return grpc.ssl_server_credentials(
        [(_read(settings.tls_key), _read(settings.tls_cert))],
        root_certificates=authority,
        require_client_auth=authority is not None,
    )


def bind(server: grpc.aio.Server, settings: Settings) -> str:
    """Opens the port and returns the address under which it is reached. Raises InvalidSettings."""
    check_address(settings)
    credentials = server_credentials(settings)
    try:
        with _private_sockets():
            if credentials is None:
                port = server.add_insecure_port(settings.address)
            else:
                port = server.add_secure_port(settings.address, credentials)
    except RuntimeError as error:
        raise InvalidSettings(f"cannot listen on {settings.address!r}: {error}") from error
    if settings.address.startswith(UNIX):
        return settings.address
    return f"{settings.address.rpartition(':')[0]}:{port}"


@contextmanager
def _private_sockets() -> Iterator[None]:
    """A socket file of this user alone."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def _is_loopback(host: str) -> bool:
    host = host.strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidSettings(f"{str(path)!r} cannot be read: {error.strerror}") from error
