"""API keys: made once, kept as a hash, checked on every call.

A token is ``dc_<key id>_<secret>``. The secret has 256 random bits, so that a plain hash of it
cannot be reversed by trying; only the hash is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence

import numpy as np

from data.store import ApiKey, Store

__all__ = [
    "SCOPES",
    "AuthenticationError",
    "KeyRing",
    "ScopeError",
    "allows",
    "make_key",
    "token_of",
]

SCOPES = ("score", "records", "forecast", "models", "admin")
_TOKEN = re.compile(r"dc_([0-9a-f]{12})_([0-9a-f]{64})")
_NOTE_USE_EVERY = np.timedelta64(60, "s")


class AuthenticationError(Exception):
    """No key, or one that does not open anything (any more)."""


class ScopeError(Exception):
    """A good key that may not do this; or, when making one, a scope that does not exist."""


def make_key(
    name: str,
    scopes: Sequence[str],
    now: np.datetime64,
    expires_at: np.datetime64 | None = None,
) -> tuple[str, ApiKey]:
    """A new key: the token, to be shown once, and what the store keeps.

    Raises
    ------
    ScopeError
        If a scope does not exist, or none is given.
    """
    wrong = [s for s in scopes if s not in SCOPES]
    if wrong or not scopes:
        raise ScopeError(f"scopes are {list(scopes)}; allowed: one or more of {', '.join(SCOPES)}")
    key_id, secret = secrets.token_hex(6), secrets.token_hex(32)
    never = np.datetime64("NaT", "us")
    key = ApiKey(
        key_id,
        name,
        _hash(secret),
        tuple(dict.fromkeys(scopes)),
        now.astype("datetime64[us]"),
        expires_at=never if expires_at is None else expires_at.astype("datetime64[us]"),
    )
    return f"dc_{key_id}_{secret}", key


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def token_of(authorization: str | None, x_api_key: str | None) -> str | None:
    """The token in the two headers it may come in; `Authorization` counts first.

    Raises
    ------
    AuthenticationError
        If `Authorization` is of another scheme.
    """
    if authorization is None:
        return x_api_key
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise AuthenticationError(
            "the Authorization header is of another scheme; allowed: Authorization: Bearer <key>"
        )
    return token.strip()


def allows(key: ApiKey, scope: str) -> None:
    """Make sure that a key has a scope; `admin` has all.

    Raises
    ------
    ScopeError
        If it has not.
    """
    if scope not in key.scopes and "admin" not in key.scopes:
        raise ScopeError(
            f"this key has the scopes {', '.join(key.scopes)}; this call needs {scope!r}"
        )


class KeyRing:
    """Tells whose token it is.

    Parameters
    ----------
    store : Store
    clock : callable
        The moment now, datetime64[us] UTC.
    """

    def __init__(self, store: Store, clock: Callable[[], np.datetime64]) -> None:
        self._store, self._clock = store, clock
        self._noted: dict[str, np.datetime64] = {}

    def identify(self, token: str | None) -> ApiKey:
        """The key of a token.

        Raises
        ------
        AuthenticationError
            If there is none, or it is unknown, expired or revoked.
        StoreError
            If the store does not answer.
        """
        if not token:
            raise AuthenticationError(
                "no API key; send it as Authorization: Bearer <key>, or as X-API-Key: <key>"
            )
        parts = _TOKEN.fullmatch(token)
        key = self._store.find_key(_hash(parts[2])) if parts else None
        # The hash found the key; both parts are compared again in constant time.
        if (
            parts is None
            or key is None
            or not hmac.compare_digest(key.key_id, parts[1])
            or not hmac.compare_digest(key.hash, _hash(parts[2]))
        ):
            raise AuthenticationError("the API key is not known here")
        now = self._clock()
        if not np.isnat(key.revoked_at):
            raise AuthenticationError("the API key was revoked; ask for a new one")
        if not np.isnat(key.expires_at) and key.expires_at <= now:
            raise AuthenticationError("the API key has expired; ask for a new one")
        self._note_use(key.key_id, now)
        return key

    def _note_use(self, key_id: str, now: np.datetime64) -> None:
        last = self._noted.get(key_id)
        if last is None or now - last >= _NOTE_USE_EVERY:
            self._noted[key_id] = now
            self._store.touch_key(key_id, now)
