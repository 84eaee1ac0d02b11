"""The outbox: webhooks that the statement which ends a job puts there, for senders to take turns with.

A webhook that is due is leased to one sender at a time. The lease is the fence, too: what a sender records after
another has taken the webhook over changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ourvidz_gateway.database import Database


def insert_deliveries(source: str, *, operator: str) -> str:
    """Return the SQL that puts the webhooks of ended jobs in the outbox.

    Each row of `source` is a job that has just ended, with the columns `id`, `user_id` and `webhook_url`. `operator` is
    an SQL expression, true where the operator wants to be told of jobs' ends. One row goes to the job's own URL, where
    it has one, and one to the operator's.
    """
    return f"""
    INSERT INTO webhook_outbox (id, job_id, user_id, target, url)
    SELECT gen_random_uuid(), s.id, s.user_id, t.target, t.url
    FROM {source} s, LATERAL (
      SELECT 'operator' AS target, NULL AS url WHERE {operator}
      UNION ALL
      SELECT 'job', s.webhook_url WHERE s.webhook_url IS NOT NULL
    ) t
    """


# Each receiver's first one, by the index: the number of those that wait does not matter.
_HOSTS = """
hosts AS (
  (SELECT host FROM webhook_outbox WHERE next_try_at IS NOT NULL ORDER BY host LIMIT 1)
  UNION ALL
  SELECT (SELECT o.host FROM webhook_outbox o WHERE o.next_try_at IS NOT NULL AND o.host > hosts.host
          ORDER BY o.host LIMIT 1)
  FROM hosts WHERE hosts.host IS NOT NULL
)
"""

# $1 how many in all, $2 how many for a host, $3 hosts with another number and $4 that number, $5 hosts that are silent,
# $6 how many for all of those, $7 seconds of the lease.
# Each host's oldest comes before any host's second.
_CLAIM = f"""
WITH RECURSIVE {_HOSTS},
due AS (
  SELECT hosts.host, hosts.host = ANY($5::text[]) AS silent, o.id, o.next_try_at
  FROM hosts LEFT JOIN unnest($3::text[], $4::integer[]) AS known (host, room) ON known.host = hosts.host,
  LATERAL (
    SELECT id, next_try_at FROM webhook_outbox
    WHERE host = hosts.host AND next_try_at <= now() AND leased_until <= now()
    ORDER BY next_try_at LIMIT coalesce(known.room, $2::integer) FOR UPDATE SKIP LOCKED
  ) o
),
ranked AS (
  SELECT id, next_try_at, silent, row_number() OVER (PARTITION BY host ORDER BY next_try_at, id) AS place,
         row_number() OVER (PARTITION BY silent ORDER BY next_try_at, id) AS place_among_silent
  FROM due
),
chosen AS (
  SELECT id FROM ranked WHERE NOT silent OR place_among_silent <= $6::integer ORDER BY place, next_try_at LIMIT $1
)
UPDATE webhook_outbox o SET
  tries = o.tries + 1, last_try_at = now(), leased_until = now() + make_interval(secs => $7::double precision)
FROM chosen WHERE o.id = chosen.id
RETURNING o.id, o.job_id, o.user_id, o.target, o.url, o.host, o.tries - o.tries_before AS tries, o.leased_until
"""

_NEXT_DUE = f"""
WITH RECURSIVE {_HOSTS}
SELECT extract(epoch FROM min(o.next_try_at) - now())::double precision AS due_in_s
FROM hosts, LATERAL (
  SELECT next_try_at FROM webhook_outbox WHERE host = hosts.host AND next_try_at > now() ORDER BY next_try_at LIMIT 1
) o
"""

_DELIVERED = """
UPDATE webhook_outbox SET
  delivered_at = now(), next_try_at = NULL, leased_until = '-infinity', last_http_status = $3, last_error = NULL
WHERE id = $1 AND leased_until = $2
"""

# $5 whether it is given up at once, $6 seconds to the next try, $7 seconds after which it is given up.
_ENDS_AT = "coalesce(retried_at, created_at) + make_interval(secs => $7::double precision)"

# The last try is made when the time is up, not a whole pause before.
_FAILED = f"""
UPDATE webhook_outbox SET
  leased_until = '-infinity', last_http_status = $3, last_error = $4,
  given_up_at = CASE WHEN $5 OR {_ENDS_AT} <= now() THEN now() END,
  next_try_at = CASE WHEN NOT $5 AND {_ENDS_AT} > now()
                     THEN least(now() + make_interval(secs => $6::double precision), {_ENDS_AT}) END
WHERE id = $1 AND leased_until = $2
RETURNING given_up_at IS NOT NULL AS given_up
"""

_LET_GO = "UPDATE webhook_outbox SET leased_until = '-infinity' WHERE id = $1 AND leased_until = $2"


@dataclass(frozen=True, slots=True)
class LeasedWebhook:
    """A webhook that is this sender's to send now."""

    id: UUID
    """Its `webhook-id`, the same at every try."""
    job_id: UUID
    user_id: str
    url: str | None
    """None: it goes to the operator."""
    host: str
    """Whose turn it takes: the URL's host; empty for the operator's."""
    tries: int
    """Tries since it last started anew, with this one."""
    leased_until: datetime
    """The fence."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much a sender can take on."""

    in_all: int
    for_a_host: int
    """For a host that is not among the next."""
    for_hosts: Mapping[str, int]
    silent_hosts: frozenset[str]
    """Hosts whose last try got no answer."""
    for_silent_hosts: int
    """For all of them together."""


class Outbox:
    """What senders do with the webhooks of all gateways. Raises `DatabaseUnavailable` from any call."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, room: Room, *, lease_s: float) -> list[LeasedWebhook]:
        """Lease webhooks that are due, as many as there is room for. A lease that runs out is anyone's to take."""
        rows = await self._database.fetch(
            _CLAIM,
            room.in_all,
            room.for_a_host,
            list(room.for_hosts),
            list(room.for_hosts.values()),
            list(room.silent_hosts),
            room.for_silent_hosts,
            lease_s,
        )
        return [
            LeasedWebhook(
                id=row["id"],
                job_id=row["job_id"],
                user_id=row["user_id"],
                url=row["url"],
                host=row["host"],
                tries=row["tries"],
                leased_until=row["leased_until"],
            )
            for row in rows
        ]

    async def due_in_s(self) -> float | None:
        """Return the seconds until the next webhook becomes due; None when nothing waits for its time."""
        row = await self._database.fetchrow(_NEXT_DUE)
        return row["due_in_s"] if row else None

    async def delivered(self, webhook: LeasedWebhook, *, http_status: int) -> None:
        """Record that the receiver took it."""
        await self._database.execute(_DELIVERED, webhook.id, webhook.leased_until, http_status)

    async def failed(
        self,
        webhook: LeasedWebhook,
        *,
        error: str,
        http_status: int | None,
        for_good: bool,
        delay_s: float,
        give_up_after_s: float,
    ) -> bool:
        """Record a try that failed; return whether the webhook is given up.

        It is if that is `for_good`, or if tries have gone on for `give_up_after_s`; else it is due in `delay_s`.
        """
        row = await self._database.fetchrow(
            _FAILED, webhook.id, webhook.leased_until, http_status, error, for_good, delay_s, give_up_after_s
        )
        return row is not None and bool(row["given_up"])

    async def let_go(self, webhook: LeasedWebhook) -> None:
        """End the lease with nothing to record, so that another sender need not wait for that."""
        await self._database.execute(_LET_GO, webhook.id, webhook.leased_until)
