"""Signed, expiring URLs of objects in a local folder: a token that names one object, as a JWT."""

from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote

import jwt

from ourvidz_serving.storage.errors import SignatureExpired, SignatureInvalid, StoreMisconfigured
from ourvidz_serving.storage.object_store import check_expiry

SHORTEST_SECRET_BYTES: Final = 32
_ALGORITHM: Final = "HS256"
_AUDIENCE: Final = "object"


class UrlSigner:
    """Makes and verifies `<public_url>/objects/<bucket>/<key>?token=<JWT>`.

    `secret`, of at least 32 bytes, is for these URLs alone; `public_url` is where clients reach the gateway's REST
    front. Raises `StoreMisconfigured` for a shorter secret.
    """

    def __init__(self, secret: str, public_url: str) -> None:
        if len(secret.encode()) < SHORTEST_SECRET_BYTES:
            raise StoreMisconfigured(f"the secret that signs URLs needs at least {SHORTEST_SECRET_BYTES} bytes")
        self._secret = secret
        self._objects_url = public_url.rstrip("/") + "/objects"

    def sign(self, bucket: str, key: str, expires: timedelta) -> str:
        """Return the object's URL. Raises `ValueError` for a span outside 1 second to 7 days."""
        check_expiry(expires)
        claims = {"aud": _AUDIENCE, "sub": f"{bucket}/{key}", "exp": datetime.now(UTC) + expires}
        token = jwt.encode(claims, self._secret, algorithm=_ALGORITHM)
        return f"{self._objects_url}/{bucket}/{quote(key)}?token={token}"

    def verify(self, bucket: str, key: str, token: str) -> None:
        """Return when the token is ours, fresh and for this object. Raises `SignatureExpired`, `SignatureInvalid`."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["aud", "sub", "exp"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise SignatureExpired("the link has expired") from error
        except jwt.InvalidTokenError as error:
            raise SignatureInvalid("the link's signature is not valid") from error
        if claims["sub"] != f"{bucket}/{key}":
            raise SignatureInvalid("the link's signature is for another object")
