"""The webhook sender: delivers what is in the outbox, signed, until it was taken or a day has passed."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import structlog
import tenacity
from standardwebhooks import Webhook

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import DatabaseUnavailable, JobNotFound
from ourvidz_gateway.guarded_http import FetchError, GuardedClient, Resolve
from ourvidz_gateway.outbox import LeasedWebhook, Outbox, Room
from ourvidz_gateway.records import Records
from ourvidz_gateway.settings import GatewaySettings
from ourvidz_gateway.urls import host_of, split_url
from ourvidz_serving.storage import ObjectStore, StoreError

log = structlog.get_logger()

USER_AGENT: Final = "OurVidz"
MAX_ANSWER_BYTES: Final = 64 * 2**10
LEAVE_S: Final = 2.0
"""How long a sender that leaves tries to say what became of its webhooks; without a word, others wait for its lease."""


@dataclass(frozen=True, slots=True)
class WebhookPolicy:
    """How webhooks are tried, and how many at once."""

    first_delay_s: float = 5.0
    """The pause after the first try; each next one is twice as long."""
    max_delay_s: float = 4 * 3600.0
    jitter: float = 0.2
    """By what part a pause is shortened or drawn out at random, so that what failed together does not return so."""
    give_up_after_s: float = 24 * 3600.0
    time_limit_s: float = 10.0
    """For one try, from the host's name to the status."""
    lease_s: float = 60.0
    """After which another sender takes over what this one was sending."""
    sweep_s: float = 5.0
    """How long a webhook waits that nobody told this sender of."""
    at_once: int = 32
    at_once_for_a_host: int = 8
    at_once_for_silent_hosts: int = 8
    """For all hosts together whose last try got no answer; one for each. The rest is for those that answer."""

    def delay_s(self, tries: int, retry_after_s: float | None) -> float:
        """Return the pause after so many tries: no shorter than the receiver asks for, up to the longest pause."""
        doubled = self.first_delay_s * 2.0 ** min(tries - 1, 30)
        pause = min(doubled, self.max_delay_s) * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311  # no secret
        return max(pause, min(retry_after_s or 0.0, self.max_delay_s))


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver took it."""

    http_status: int


@dataclass(frozen=True, slots=True)
class NotDelivered:
    """The try failed; `error` says why, to operators."""

    error: str
    http_status: int | None = None
    """None if there was no answer."""
    retry_after_s: float | None = None
    """When the receiver wants to be asked again."""
    for_good: bool = False


class WebhookSender:
    """Sends the webhooks of all gateways' jobs; several gateways share the work and send none twice at once.

    `resolve` takes the place of the system's resolver for jobs' URLs.
    """

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        settings: GatewaySettings,
        *,
        policy: WebhookPolicy | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._outbox = Outbox(database)
        self._records = Records(database)
        self._store = store
        self._settings = settings
        self._policy = policy or WebhookPolicy()
        secret = settings.webhook_secret
        self._signer = Webhook(secret.get_secret_value()) if secret else None
        self._to_users = GuardedClient(
            settings.webhook_hosts,
            setting="OURVIDZ_WEBHOOK_HOSTS",
            allow_private=settings.allow_private_fetch,
            time_limit_s=self._policy.time_limit_s,
            resolve=resolve,
        )
        # The operator's own URL may lead into their network.
        parts = split_url(settings.webhook_url)
        self._to_operator = GuardedClient(
            () if isinstance(parts, str) else (host_of(parts),),
            setting="OURVIDZ_WEBHOOK_URL",
            allow_private=True,
            time_limit_s=self._policy.time_limit_s,
        )
        self._sending: Counter[str] = Counter()
        self._answers: dict[str, bool] = {}
        """Whether a host's last try was answered."""
        self._look = asyncio.Event()

    def wake(self) -> None:
        """Look for webhooks now, because a job has ended. Returns at once."""
        self._look.set()

    async def run(self) -> None:
        """Deliver for ever, through outages of the database; when cancelled, leave what is being sent to others."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._look.clear()
                wait_s = self._policy.sweep_s
                try:
                    for webhook in await self._claim():
                        group.create_task(self._deliver(webhook), name=f"webhook {webhook.id}")
                    due_in_s = await self._outbox.due_in_s()
                except DatabaseUnavailable:
                    log.warning("database away, webhooks wait")
                else:
                    wait_s = wait_s if due_in_s is None else min(wait_s, due_in_s)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._look.wait()

    async def _claim(self) -> list[LeasedWebhook]:
        """Lease what there is room for, and count it as being sent."""
        policy = self._policy
        in_all = policy.at_once - self._sending.total()
        if in_all <= 0:
            return []
        silent = frozenset(host for host, answered in self._answers.items() if not answered)
        # A host that nobody has heard of yet is tried once before it is trusted with more.
        answering = {host: policy.at_once_for_a_host for host, answered in self._answers.items() if answered}
        room = Room(
            in_all=in_all,
            for_a_host=1,
            for_hosts={
                host: max(0, answering.get(host, 1) - self._sending[host]) for host in {*answering, *self._sending}
            },
            silent_hosts=silent,
            for_silent_hosts=max(0, policy.at_once_for_silent_hosts - sum(self._sending[host] for host in silent)),
        )
        webhooks = await self._outbox.claim(room, lease_s=policy.lease_s)
        self._sending.update(webhook.host for webhook in webhooks)
        return webhooks

    async def _deliver(self, webhook: LeasedWebhook) -> None:
        """Try once, and record how that went."""
        outcome: Delivered | NotDelivered | None = None
        try:
            outcome = await self._try(webhook)
            await self._record_through_outages(webhook, outcome)
        except asyncio.CancelledError:
            with suppress(DatabaseUnavailable, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await (self._record(webhook, outcome) if outcome else self._outbox.let_go(webhook))
            raise
        finally:
            self._sending[webhook.host] -= 1
            if not self._sending[webhook.host]:
                del self._sending[webhook.host]
            self._look.set()

    async def _try(self, webhook: LeasedWebhook) -> Delivered | NotDelivered:
        try:
            # Well before the lease ends: two senders must never be at it at once.
            async with asyncio.timeout(self._policy.lease_s / 2):
                body = await self._body(webhook)
                return await self._send(webhook, body)
        except JobNotFound:
            return NotDelivered("the job's record is gone", for_good=True)
        except FetchError as error:
            return NotDelivered(str(error))
        except (DatabaseUnavailable, StoreError, TimeoutError):
            return NotDelivered("the job or its URLs could not be read")
        except Exception:  # one webhook that trips over a bug of ours must not keep all others from being sent
            log.exception("a webhook can't be sent", delivery_id=str(webhook.id), job_id=str(webhook.job_id))
            return NotDelivered("an error of this server's own")

    async def _body(self, webhook: LeasedWebhook) -> str:
        """Return what is told of the job as it stands, with URLs that were signed just now."""
        job = await self._records.get(webhook.user_id, webhook.job_id)
        expires = self._settings.url_expiry
        body: dict[str, Any] = {
            "job_id": str(job.id),
            "status": job.state,
            "assets": [await self._store.presign_get(asset.bucket, asset.key, expires=expires) for asset in job.assets],
        }
        if job.error_message:
            body["error_message"] = job.error_message
        return json.dumps({**body, "metadata": job.metadata}, separators=(",", ":"))

    async def _send(self, webhook: LeasedWebhook, body: str) -> Delivered | NotDelivered:
        url = webhook.url or self._settings.webhook_url
        if url is None:
            return NotDelivered("OURVIDZ_WEBHOOK_URL is not set any more")
        if self._signer is None:
            return NotDelivered("OURVIDZ_WEBHOOK_SECRET is not set any more")
        message_id, now = str(webhook.id), datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message_id, now, body),
        }
        client = self._to_users if webhook.url else self._to_operator
        try:
            answer = await client.post(url, body.encode(), headers=headers, max_bytes=MAX_ANSWER_BYTES)
        except FetchError:
            self._answers[webhook.host] = False
            raise
        self._answers[webhook.host] = True
        if httpx.codes.is_success(answer.status):
            return Delivered(answer.status)
        return NotDelivered(
            f"its server answers {answer.status}",
            http_status=answer.status,
            retry_after_s=_seconds(answer.retry_after),
            for_good=answer.status == httpx.codes.GONE,
        )

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(DatabaseUnavailable),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        before_sleep=lambda state: log.warning("database away, a delivery waits", tries=state.attempt_number),
    )
    async def _record_through_outages(self, webhook: LeasedWebhook, outcome: Delivered | NotDelivered) -> None:
        await self._record(webhook, outcome)

    async def _record(self, webhook: LeasedWebhook, outcome: Delivered | NotDelivered) -> None:
        """Store how a try went. Raises `DatabaseUnavailable`."""
        line = log.bind(delivery_id=str(webhook.id), job_id=str(webhook.job_id), tries=webhook.tries)
        if isinstance(outcome, Delivered):
            await self._outbox.delivered(webhook, http_status=outcome.http_status)
            line.info("webhook delivered", http_status=outcome.http_status)
            return
        given_up = await self._outbox.failed(
            webhook,
            error=outcome.error,
            http_status=outcome.http_status,
            for_good=outcome.for_good,
            delay_s=self._policy.delay_s(webhook.tries, outcome.retry_after_s),
            give_up_after_s=self._policy.give_up_after_s,
        )
        line.warning("webhook given up" if given_up else "webhook not delivered", error=outcome.error)


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After: seconds or a date; None when it is neither, or there is none."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        return None
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
