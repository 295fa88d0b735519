"""Secrets of tokens, logins and links: 256 random bits each, stored as a hash, compared in constant time.

Such a secret cannot be guessed, so a plain SHA-256 is enough; argon2id is for passwords.
"""

import hashlib
import hmac
import re
import secrets

_TOKEN = re.compile(r"fct_(tok_[0-9a-z]{26})_([0-9a-f]{64})")
_PAIR = re.compile(r"((?:log|lnk)_[0-9a-z]{26})\.([0-9a-f]{64})")


def new_secret() -> str:
    """64 hex digits."""
    return secrets.token_hex(32)


def hash_of(secret: str) -> str:
    """What the store keeps."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, kept: str) -> bool:
    """Whether `kept` is the hash of `secret`; takes the same time either way."""
    return hmac.compare_digest(hash_of(secret), kept)


def token_text(token_id: str, secret: str) -> str:
    """The form that is shown once: `fct_<id>_<secret>`."""
    return f"fct_{token_id}_{secret}"


def read_token(text: str) -> tuple[str, str] | None:
    """Id and secret of an API token, None where it has not that form."""
    found = _TOKEN.fullmatch(text)
    return None if found is None else (found[1], found[2])


def pair_text(pair_id: str, secret: str) -> str:
    """The form of a session cookie and of a login link: `<id>.<secret>`."""
    return f"{pair_id}.{secret}"


def read_pair(text: str) -> tuple[str, str] | None:
    """Id and secret of a cookie or link, None where it has not that form."""
    found = _PAIR.fullmatch(text)
    return None if found is None else (found[1], found[2])
