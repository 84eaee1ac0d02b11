"""The secrets of a local stack: drawn by the first `up`, kept in its data folder, known nowhere else."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import jwt

from ourvidz.errors import LocalStackError
from ourvidz.local.folder import DataFolder

SECRET_BYTES = 48


@dataclass(frozen=True, slots=True)
class Secrets:
    """One secret for each purpose, so that none opens what another guards."""

    jwt: str
    """Signs users' tokens."""
    url_signing: str
    """Signs the URLs of stored objects."""
    service: str
    """What servers show each other."""

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
        """Return the folder's secrets, drawn now if it has none; the caller holds the folder's lock."""
        if folder.secrets.exists():
            return cls.read(folder)
        drawn = cls(*(secrets.token_urlsafe(SECRET_BYTES) for _ in range(3)))
        # Written whole under another name first: a crash must not leave a file that says half a secret.
        draft = folder.secrets.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(drawn), file, indent=2)
        draft.rename(folder.secrets)
        return drawn


def user_token(keys: Secrets, user: str, *, hours: float) -> str:
    """Sign a JWT for a user of the local stack. Raises `LocalStackError` for a name that no user can have."""
    if not user or len(user) > 200 or not user.isprintable():
        raise LocalStackError("A user's name has 1 to 200 printable characters")
    now = datetime.now(UTC)
    claims = {
        "aud": "authenticated",
        "role": "authenticated",
        "sub": user,
        "iat": now,
        "exp": now + timedelta(hours=hours),
    }
    return jwt.encode(claims, keys.jwt, algorithm="HS256")
