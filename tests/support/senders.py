"""Webhook senders of the tests, whose pauses are short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

from ourvidz_gateway.database import Database
from ourvidz_gateway.guarded_http import Resolve
from ourvidz_gateway.webhooks import WebhookPolicy, WebhookSender
from ourvidz_serving.storage import LocalStore, UrlSigner
from support import fronts
from support.receiver import Received, Receiver

SECRET = "whsec_" + "dGVzdHM" * 8

QUICK = WebhookPolicy(first_delay_s=0.05, max_delay_s=0.2, sweep_s=0.05)


def store_in(folder: Path) -> LocalStore:
    """A store whose URLs the gateway itself serves."""
    return LocalStore(folder, UrlSigner("another secret of the tests, for signed URLs", fronts.PUBLIC_URL))


def sender(
    database: Database,
    store: LocalStore,
    *receivers: Receiver,
    policy: WebhookPolicy = QUICK,
    resolve: Resolve | None = None,
    **values: Any,
) -> WebhookSender:
    """A sender that may call these receivers for jobs; settings can be changed."""
    stated = {
        "webhook_secret": SECRET,
        "webhook_hosts": ",".join(each.host for each in receivers),
        "allow_private_fetch": True,
        **values,
    }
    return WebhookSender(database, store, fronts.settings(**stated), policy=policy, resolve=resolve)


@asynccontextmanager
async def running(*senders: WebhookSender) -> AsyncIterator[None]:
    """Let senders run until the end of the block."""
    tasks = [asyncio.create_task(sender.run()) for sender in senders]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), ended


def checked(received: Received) -> dict[str, Any]:
    """What a receiver reads once it has checked the signature."""
    body: dict[str, Any] = Webhook(SECRET).verify(received.body, received.headers)
    return body
