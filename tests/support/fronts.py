"""What tests of both fronts share: a front over jobs in memory, and users' tokens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt

from ourvidz_gateway.assets import Assets
from ourvidz_gateway.auth import Authenticator
from ourvidz_gateway.catalog import load_catalog
from ourvidz_gateway.credits import Credits
from ourvidz_gateway.decoding import Decoder
from ourvidz_gateway.deliveries import Deliveries
from ourvidz_gateway.front import Front
from ourvidz_gateway.guarded_http import GuardedClient
from ourvidz_gateway.jobs import JobStage, NewJob
from ourvidz_gateway.parts import Parts
from ourvidz_gateway.previews import Previews
from ourvidz_gateway.prompt_policy import PromptPolicy
from ourvidz_gateway.quarantine import Quarantine
from ourvidz_gateway.references import References
from ourvidz_gateway.settings import GatewaySettings
from ourvidz_gateway.tickets import Tickets
from ourvidz_gateway.uploads import Uploads
from ourvidz_serving.storage import LocalStore, UrlSigner
from support.memory_jobs import MemoryJobs

SECRET = "a secret of the tests, long enough for HS256"
PUBLIC_URL = "http://127.0.0.1:8000"


def settings(**values: Any) -> GatewaySettings:
    """The gateway's settings as an operator would have made them."""
    return GatewaySettings(
        **{"database_url": "postgresql://unused", "jwt_secret": SECRET, "credits_grant": 1000, **values}
    )


class NoRows:
    """A database that holds nothing and keeps nothing."""

    async def fetchrow(self, *_: Any) -> None:
        return None

    async def fetch(self, *_: Any) -> list[Any]:
        return []

    async def execute(self, *_: Any) -> None:
        return None


def front(jobs: MemoryJobs, folder: Path, database: Any = None, **values: Any) -> Front:
    """A front over jobs in memory and a store in `folder`; without a `database`, there is nothing but those jobs."""
    chosen = settings(**values)
    store = LocalStore(folder, UrlSigner("another secret of the tests, for signed URLs", PUBLIC_URL))
    database = database or NoRows()
    decoder = Decoder()
    client = GuardedClient(chosen.reference_hosts, setting="OURVIDZ_REFERENCE_HOSTS")
    return Front(
        jobs=jobs,
        catalog=load_catalog(),
        authenticator=Authenticator.from_settings(chosen),
        store=store,
        settings=chosen,
        parts=Parts(
            references=References(database, store, client, decoder),
            uploads=Uploads(
                database, store, decoder, quota_bytes=chosen.reference_quota_bytes, on_deleted=lambda: None
            ),
            assets=Assets(database, on_deleted=lambda: None),
            credits=Credits(database, welcome=chosen.credits_grant),
            policy=PromptPolicy(database, chosen),
            tickets=Tickets(database, expiry=chosen.ticket_expiry),
            deliveries=Deliveries(database, operator_url=chosen.webhook_url),
            previews=Previews(database),
        ),
        quarantine=Quarantine(database, _nothing_enters),
    )


async def _nothing_enters(_job: NewJob, _stages: Sequence[JobStage]) -> None:
    raise AssertionError("jobs in memory are never in quarantine")


def token(user: str = "alice", *, secret: str = SECRET, **claims: Any) -> str:
    """A token that is valid for an hour, but for what `claims` change; None takes a claim out."""
    stated = {"sub": user, "aud": "authenticated", "exp": datetime.now(UTC) + timedelta(hours=1), **claims}
    return jwt.encode({name: value for name, value in stated.items() if value is not None}, secret, algorithm="HS256")
