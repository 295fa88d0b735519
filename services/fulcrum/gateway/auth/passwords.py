"""Passwords: argon2id, a few at a time, and the same time for a name that does not exist."""

import anyio
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

MIN_LENGTH, MAX_LENGTH = 10, 256

_hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
# Each takes 64 MiB and some 50 ms of several cores: a wave of logins must not take the machine.
_AT_ONCE = anyio.CapacityLimiter(2)
# Of a password that nobody has; verified against where there is no user, so that the time tells nothing.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$jCMzaSfn3YKKlLzPPYAtrA$lNmvaQ5QgdjmpHvQsPSi5cME250jAFN+JG7tZejMASs"


async def hash_password(password: str) -> str:
    """What the store keeps."""
    return await anyio.to_thread.run_sync(_hasher.hash, _bytes(password), limiter=_AT_ONCE)


async def verify_password(password: str, kept: str | None) -> bool:
    """Whether `kept` is the hash of this password; False for None, after the same time."""

    def verify() -> bool:
        try:
            return _hasher.verify(kept or _NOBODY, _bytes(password)) and kept is not None
        except (VerificationError, InvalidHashError):
            return False

    return await anyio.to_thread.run_sync(verify, limiter=_AT_ONCE)


def _bytes(password: str) -> bytes:
    # JSON can write half of a surrogate pair, which UTF-8 cannot.
    return password.encode("utf-8", "surrogatepass")


def is_outdated(kept: str) -> bool:
    """Whether the hash was made with weaker parameters than today's."""
    return _hasher.check_needs_rehash(kept)
