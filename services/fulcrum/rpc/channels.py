"""Channels to the inference service: addresses, limits, keepalive, TLS.

A channel that was made before a fork is broken in the child: make engines after forking (`worker_process_init`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from fulcrum.domain.errors import InvalidSettings

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_MAX_METADATA_BYTES = 32 * 1024
_KEEPALIVE_MS = 30_000

Options = list[tuple[str, Any]]


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: what the peer's certificate is checked against, and our own certificate for mutual TLS.

    `server_name` is the name in the service's certificate where it is not the one of the address.
    """

    ca: Path
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InvalidSettings(
                f"a TLS certificate and its key belong together: got cert {self.cert}, key {self.key}"
            )


def addresses_of(text: str) -> tuple[str, ...]:
    """Addresses in `unix:/path` or `host:port`, several separated by commas. Raises InvalidSettings."""
    found = tuple(a.strip() for a in text.split(",") if a.strip())
    if not found:
        raise InvalidSettings(f"{text!r} holds no address: expected unix:/path or host:port")
    if len(set(found)) != len(found):
        raise InvalidSettings(f"the addresses {text!r} name one replica twice")
    return found


def channel_options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> Options:
    """Options of a client."""
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),  # a long computation sends none for minutes
        # A service that was restarted is found again within seconds, not after gRPC's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # One name of several addresses (a headless Service): spread calls over them.
        ("grpc.lb_policy_name", "round_robin"),
        # Retries are ours: they go to another replica.
        ("grpc.enable_retries", 0),
    ]


def server_options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> Options:
    """Options of a server that allows the keepalive of `channel_options`."""
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.keepalive_permit_without_calls", 1),
        # Without it gRPC answers a ping every 30 s with GOAWAY "too many pings".
        ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
        ("grpc.so_reuseport", 0),  # a second server on the same port is an error, not a silent share
    ]


def open_channel(address: str, tls: TlsFiles | None = None) -> grpc.Channel:
    """A channel for synchronous stubs; it connects at the first call."""
    options, credentials = _dressed(tls)
    if credentials is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, credentials, options=options)


def open_async_channel(address: str, tls: TlsFiles | None = None) -> grpc.aio.Channel:
    """A channel for asyncio stubs, bound to the running event loop; it connects at the first call."""
    options, credentials = _dressed(tls)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def _dressed(tls: TlsFiles | None) -> tuple[Options, grpc.ChannelCredentials | None]:
    options = channel_options()
    if tls is None:
        return options, None
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    try:
        credentials = grpc.ssl_channel_credentials(
            tls.ca.read_bytes(),
            None if tls.key is None else tls.key.read_bytes(),
            None if tls.cert is None else tls.cert.read_bytes(),
        )
    except OSError as error:
        raise InvalidSettings(f"a TLS file cannot be read: {error}") from error
    return options, credentials
