"""What travels beside a message: who asks, under which request id, with which internal token."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

USER = "x-fulcrum-user"
REQUEST_ID = "x-fulcrum-request-id"
AUTHORIZATION = "authorization"
TRACEPARENT = "traceparent"


@dataclass(frozen=True)
class CallMetadata:
    """`user` shares the queue fairly with other users; empty for nobody in particular."""

    user: str = ""
    request_id: str = ""
    token: str | None = None
    traceparent: str = ""

    def to_pairs(self) -> tuple[tuple[str, str], ...]:
        """Pairs for gRPC, without what is empty; values are made ASCII by percent-encoding."""
        pairs = (
            (USER, quote(self.user)),
            (REQUEST_ID, quote(self.request_id)),
            (AUTHORIZATION, f"Bearer {self.token}" if self.token else ""),
            (TRACEPARENT, self.traceparent),
        )
        return tuple((k, v) for k, v in pairs if v)

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, str | bytes]]) -> "CallMetadata":
        """Inverse of `to_pairs`; unknown keys are ignored."""
        values = {key: value for key, value in pairs if isinstance(value, str)}
        scheme, _, token = values.get(AUTHORIZATION, "").partition(" ")
        return cls(
            unquote(values.get(USER, "")),
            unquote(values.get(REQUEST_ID, "")),
            token if scheme.lower() == "bearer" and token else None,
            values.get(TRACEPARENT, ""),
        )


def carried_pairs(carried: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What a caller carries on, such as `{REQUEST_ID: ..., **outgoing_trace()}`, without what is empty."""
    return tuple((k, quote(v) if k == REQUEST_ID else v) for k, v in carried.items() if v)
