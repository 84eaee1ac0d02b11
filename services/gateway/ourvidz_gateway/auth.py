"""Who is calling: a JWT becomes a principal."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any, Self

import jwt

from ourvidz_gateway.errors import IdentityProviderUnavailable, Unauthenticated
from ourvidz_gateway.settings import MIN_SECRET_BYTES, GatewaySettings
from ourvidz_gateway.text import is_plain

MAX_USER_ID_CHARACTERS = 200
JWKS_TIMEOUT_S = 5.0

REMEMBERED_S = 60.0
"""How long a token that was checked is taken without checking it again: a page asks with the same one all the time."""
MAX_REMEMBERED = 10_000

OPERATOR_ROLE = "service_role"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller, as their token names them."""

    user_id: str
    """The token's `sub`."""
    role: str | None
    """The token's `role` claim, where it has one."""

    @property
    def is_operator(self) -> bool:
        """Whether the caller runs this server."""
        return self.role == OPERATOR_ROLE


class SecretKey:
    """The one HS256 secret that tokens are signed with. Raises `ValueError` when it is shorter than 32 bytes."""

    algorithms = ("HS256",)

    def __init__(self, secret: str) -> None:
        if len(secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"A JWT secret must be at least {MIN_SECRET_BYTES} bytes.")
        self._secret = secret

    async def find(self, token: str) -> str:  # noqa: ARG002  # one secret for all tokens
        """Return the key that this token must be signed with."""
        return self._secret


class PublicKeys:
    """An identity provider's public keys, fetched from its JWKS URL when first needed and kept for five minutes."""

    algorithms = ("RS256", "ES256")

    def __init__(self, url: str) -> None:
        self._client = jwt.PyJWKClient(url, timeout=JWKS_TIMEOUT_S)

    async def find(self, token: str) -> jwt.PyJWK:
        """Return the key that this token must be signed with.

        Raises `IdentityProviderUnavailable` when the keys can't be fetched, and PyJWT's errors for a token whose key is
        not among them.
        """
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str):
            raise jwt.InvalidTokenError("the token names no key")
        try:
            # The client fetches with urllib, so it stays off the event loop.
            return await asyncio.to_thread(self._client.get_signing_key, kid)
        except (jwt.PyJWKClientConnectionError, jwt.PyJWKSetError, JSONDecodeError) as error:
            raise IdentityProviderUnavailable("Tokens can't be checked at the moment.") from error


class Authenticator:
    """Turns the `Authorization` of a call into its principal.

    The algorithm follows from where the keys come from, never from the token, so that a public key can't be passed off
    as an HS256 secret.
    """

    def __init__(self, keys: SecretKey | PublicKeys, *, audience: str) -> None:
        self._keys = keys
        self._audience = audience
        self._remembered: dict[bytes, tuple[Principal, float]] = {}
        """Who showed tokens lately and until when that counts, by the tokens' SHA-256: they themselves are not kept."""

    @classmethod
    def from_settings(cls, settings: GatewaySettings) -> Self:
        """Make the one that the settings ask for."""
        if settings.jwt_secret is not None:
            return cls(SecretKey(settings.jwt_secret.get_secret_value()), audience=settings.jwt_audience)
        if settings.jwks_url is not None:
            return cls(PublicKeys(settings.jwks_url), audience=settings.jwt_audience)
        raise ValueError("The settings name neither a JWT secret nor a JWKS URL.")

    async def authenticate(self, authorization: str | None) -> Principal:
        """Return the principal. Raises `Unauthenticated`, and `IdentityProviderUnavailable`."""
        if not authorization:
            raise Unauthenticated("A token is missing: send the header `Authorization: Bearer <token>`.")
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("The Authorization header must be `Bearer <token>`.")
        digest = hashlib.sha256(token.strip().encode()).digest()
        principal, until = self._remembered.get(digest, (None, 0.0))
        if principal is None or until <= time.time():
            claims = await self._claims(token.strip())
            principal = _principal(claims)
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[digest] = principal, min(int(claims["exp"]), time.time() + REMEMBERED_S)
        return principal

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            key = await self._keys.find(token)
            return jwt.decode(
                token,
                key,
                algorithms=self._keys.algorithms,
                audience=self._audience,
                # `iat` says when, not whether: a provider's clock that is a second ahead must not lock users out.
                options={"require": ["exp", "sub", "aud"], "verify_iat": False},
            )
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("The token has expired.") from error
        except (jwt.PyJWTError, ValueError) as error:
            # One answer for all faults: which check failed helps only someone who forges tokens.
            raise Unauthenticated("The token is not valid.") from error


def _principal(claims: dict[str, Any]) -> Principal:
    user_id, role = claims["sub"], claims.get("role")
    if not isinstance(user_id, str) or not 1 <= len(user_id) <= MAX_USER_ID_CHARACTERS or not is_plain(user_id):
        raise Unauthenticated("The token is not valid.")
    return Principal(user_id=user_id, role=role if isinstance(role, str) else None)
