"""What a gateway has for its users besides jobs, and for its operators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from ourvidz_gateway.assets import Assets
from ourvidz_gateway.credits import Credits
from ourvidz_gateway.database import Database
from ourvidz_gateway.decoding import Decoder
from ourvidz_gateway.deliveries import Deliveries
from ourvidz_gateway.guarded_http import GuardedClient
from ourvidz_gateway.previews import Previews
from ourvidz_gateway.prompt_policy import PromptPolicy
from ourvidz_gateway.references import References
from ourvidz_gateway.settings import GatewaySettings
from ourvidz_gateway.tickets import Tickets
from ourvidz_gateway.uploads import Uploads
from ourvidz_serving.storage import ObjectStore


@dataclass(frozen=True, slots=True)
class Parts:
    """All of them, over one database and one store."""

    references: References
    uploads: Uploads
    assets: Assets
    credits: Credits
    policy: PromptPolicy
    tickets: Tickets
    deliveries: Deliveries
    previews: Previews


@asynccontextmanager
async def open_parts(
    database: Database,
    store: ObjectStore,
    settings: GatewaySettings,
    *,
    ask_others: Callable[[UUID], object],
    on_deleted: Callable[[], None],
) -> AsyncIterator[Parts]:
    """Make them; at the end, the connections that they hold are closed. `ask_others` is for `Previews`.

    `on_deleted` is called when users have deleted a file.
    """
    client = GuardedClient(
        settings.reference_hosts, setting="OURVIDZ_REFERENCE_HOSTS", allow_private=settings.allow_private_fetch
    )
    decoder = Decoder()
    policy = PromptPolicy(database, settings)
    try:
        yield Parts(
            references=References(database, store, client, decoder),
            uploads=Uploads(
                database, store, decoder, quota_bytes=settings.reference_quota_bytes, on_deleted=on_deleted
            ),
            assets=Assets(database, on_deleted=on_deleted),
            credits=Credits(database, welcome=settings.credits_grant),
            policy=policy,
            tickets=Tickets(database, expiry=settings.ticket_expiry),
            deliveries=Deliveries(database, operator_url=settings.webhook_url),
            previews=Previews(database, ask_others=ask_others),
        )
    finally:
        decoder.close()
        await policy.close()
