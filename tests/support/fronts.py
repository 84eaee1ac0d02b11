"""What tests of both fronts share: a front over jobs in memory, and users' tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt

from ourvidz_gateway.auth import Authenticator
from ourvidz_gateway.catalog import load_catalog
from ourvidz_gateway.front import Front
from ourvidz_gateway.guarded_http import GuardedClient
from ourvidz_gateway.references import References
from ourvidz_gateway.settings import GatewaySettings
from ourvidz_serving.storage import LocalStore, UrlSigner
from support.memory_jobs import MemoryJobs

SECRET = "a secret of the tests, long enough for HS256"
PUBLIC_URL = "http://127.0.0.1:8000"


def settings(**values: Any) -> GatewaySettings:
    """The gateway's settings as an operator would have made them."""
    return GatewaySettings(**{"database_url": "postgresql://unused", "jwt_secret": SECRET, **values})


class NoRows:
    """A database that holds nothing."""

    async def fetchrow(self, *_: Any) -> None:
        return None


def front(jobs: MemoryJobs, folder: Path, database: Any = None, **values: Any) -> Front:
    """A front over jobs in memory and a store in `folder`; without a `database`, nobody has uploaded anything."""
    chosen = settings(**values)
    store = LocalStore(folder, UrlSigner("another secret of the tests, for signed URLs", PUBLIC_URL))
    client = GuardedClient(chosen.reference_hosts, setting="OURVIDZ_REFERENCE_HOSTS")
    return Front(
        jobs=jobs,
        catalog=load_catalog(),
        authenticator=Authenticator.from_settings(chosen),
        store=store,
        settings=chosen,
        references=References(database or NoRows(), store, client),
    )


def token(user: str = "alice", *, secret: str = SECRET, **claims: Any) -> str:
    """A token that is valid for an hour, but for what `claims` change; None takes a claim out."""
    stated = {"sub": user, "aud": "authenticated", "exp": datetime.now(UTC) + timedelta(hours=1), **claims}
    return jwt.encode({name: value for name, value in stated.items() if value is not None}, secret, algorithm="HS256")
