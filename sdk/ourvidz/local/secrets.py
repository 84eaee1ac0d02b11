"""The secrets of a local stack: drawn by the first `up`, kept in its data folder, known nowhere else."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

import jwt

from ourvidz.errors import LocalStackError
from ourvidz.local.folder import DataFolder

SECRET_BYTES = 48
WEBHOOK_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Secrets:
    """One secret for each purpose, so that none opens what another guards."""

    jwt: str
    """Signs users' tokens."""
    url_signing: str
    """Signs the URLs of stored objects."""
    service: str
    """What servers show each other."""
    webhook: str = ""
    """Signs webhooks, as Standard Webhooks writes secrets; empty in a folder that no stack with webhooks ran on yet."""

    def __repr__(self) -> str:
        return "Secrets(…)"

    @classmethod
    def read(cls, folder: DataFolder) -> Secrets:
        """Read the folder's secrets. Raises `LocalStackError` if no stack was ever started on it."""
        try:
            return cls(**json.loads(folder.secrets.read_text()))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise LocalStackError(f"No local stack was started on {folder.path} yet: run `ourvidz up` first") from error
        except OSError as error:
            raise LocalStackError(f"{folder.secrets} can't be read: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            raise LocalStackError(
                f"{folder.secrets} is damaged; delete it, and the next `up` makes a new one"
            ) from error

    @classmethod
    def make(cls, folder: DataFolder) -> Secrets:
        """Return the folder's secrets; what it lacks is drawn now. The caller holds the folder's lock."""
        if folder.secrets.exists():
            found = cls.read(folder)
            if found.webhook:
                return found
            drawn = replace(found, webhook=_webhook_secret())
        else:
            drawn = cls(jwt=_secret(), url_signing=_secret(), service=_secret(), webhook=_webhook_secret())
        # Written whole under another name first: a crash must not leave a file that says half a secret.
        draft = folder.secrets.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(drawn), file, indent=2)
        draft.rename(folder.secrets)
        return drawn


def _secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)


def _webhook_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(WEBHOOK_SECRET_BYTES)).decode()}"


def user_token(keys: Secrets, user: str, *, hours: float, operator: bool = False) -> str:
    """Sign a JWT for a user of the local stack, or for an operator of it.

    Raises `LocalStackError` for a name that no user can have.
    """
    if not user or len(user) > 200 or not user.isprintable():
        raise LocalStackError("A user's name has 1 to 200 printable characters")
    now = datetime.now(UTC)
    claims = {
        "aud": "authenticated",
        "role": "service_role" if operator else "authenticated",
        "sub": user,
        "iat": now,
        "exp": now + timedelta(hours=hours),
    }
    return jwt.encode(claims, keys.jwt, algorithm="HS256")
