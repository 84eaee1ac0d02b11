"""How long rows are kept: for each kind of row that goes by its age alone, the age and the statement.

Records of jobs, and rows whose objects must go first, are not here: see the cleaner.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from ourvidz_gateway.settings import GatewaySettings

STEPS_KEPT = timedelta(minutes=1)
"""Steps of an ended job stay this long, for watchers that are a little behind."""

PREVIEWS_KEPT = timedelta(minutes=1)

LANES_KEPT = timedelta(days=1)

# All of these: $1 the age as an interval, $2 how many rows at most. They skip what somebody else has locked, so that
# the cleaner waits for nobody and nobody's order of locks matters to it.

_STEPS = """
WITH old AS (
  SELECT s.job_id, s.sequence FROM job_events s JOIN jobs j ON j.id = s.job_id
  WHERE NOT s.milestone AND s.created_at < now() - $1::interval AND j.completed_at < now() - $1::interval
  ORDER BY s.created_at LIMIT $2 FOR UPDATE OF s SKIP LOCKED
)
DELETE FROM job_events e USING old WHERE e.job_id = old.job_id AND e.sequence = old.sequence
"""

# The one in which the job ended stays as long as the job does: whoever watches it must see its end.
_MILESTONES = """
WITH old AS (
  SELECT m.job_id, m.sequence FROM job_events m JOIN jobs j ON j.id = m.job_id
  WHERE m.milestone AND m.state IN ('queued', 'processing')
    AND m.created_at < now() - $1::interval AND j.completed_at < now() - $1::interval
  ORDER BY m.created_at LIMIT $2 FOR UPDATE OF m SKIP LOCKED
)
DELETE FROM job_events e USING old WHERE e.job_id = old.job_id AND e.sequence = old.sequence
"""

_IDEMPOTENCY_KEYS = """
WITH old AS (
  SELECT user_id, key FROM idempotency_keys WHERE created_at < now() - $1::interval
  ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM idempotency_keys k USING old WHERE k.user_id = old.user_id AND k.key = old.key
"""

# A delivery has begun before it ended, and `created_at` is what there is an index on.
_DELIVERIES = """
WITH old AS (
  SELECT id FROM webhook_outbox
  WHERE created_at < now() - $1::interval AND next_try_at IS NULL
    AND greatest(delivered_at, given_up_at, last_try_at) < now() - $1::interval
  ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM webhook_outbox o USING old WHERE o.id = old.id
"""

_POLICY_AUDIT = """
WITH old AS (
  SELECT id FROM policy_audit WHERE created_at < now() - $1::interval
  ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM policy_audit a USING old WHERE a.id = old.id
"""

_STREAM_TICKETS = """
WITH old AS (
  SELECT ticket_sha256 FROM stream_tickets WHERE expires_at < now() - $1::interval
  ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM stream_tickets t USING old WHERE t.ticket_sha256 = old.ticket_sha256
"""

_JOB_PREVIEWS = """
WITH old AS (
  SELECT job_id FROM job_previews p
  WHERE updated_at < now() - $1::interval
    AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = p.job_id AND j.state = 'processing')
  LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM job_previews p USING old WHERE p.job_id = old.job_id
"""

# Only those that are behind where a new lane would start: to their users, there is no difference. The one that has
# come furthest is never among them, so where new lanes start does not change either.
_LANES = """
WITH start AS (
  SELECT kind, coalesce(min(virtual_time) FILTER (WHERE waiting > 0), max(virtual_time)) AS virtual_time
  FROM lanes GROUP BY kind
),
old AS (
  SELECT l.kind, l.user_id FROM lanes l JOIN start USING (kind)
  WHERE l.waiting = 0 AND coalesce(l.claimed_at, '-infinity') < now() - $1::interval
    AND l.virtual_time < start.virtual_time
  LIMIT $2 FOR UPDATE OF l SKIP LOCKED
)
DELETE FROM lanes l USING old WHERE l.kind = old.kind AND l.user_id = old.user_id AND l.waiting = 0
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows of one kind, and how old they get."""

    rows: str
    """What they are, for the log."""
    statement: str
    """Deletes those older than $1, an interval; at most $2 of them."""
    age: timedelta


def rules(settings: GatewaySettings) -> list[Rule]:
    """Return all rules, as the operator has set them."""
    return [
        Rule("steps", _STEPS, STEPS_KEPT),
        Rule("milestones", _MILESTONES, settings.keep_milestones),
        Rule("idempotency keys", _IDEMPOTENCY_KEYS, settings.keep_idempotency_keys),
        Rule("webhook deliveries", _DELIVERIES, settings.keep_deliveries),
        Rule("policy audit", _POLICY_AUDIT, settings.keep_policy_audit),
        Rule("stream tickets", _STREAM_TICKETS, timedelta()),
        Rule("job previews", _JOB_PREVIEWS, PREVIEWS_KEPT),
        Rule("lanes", _LANES, LANES_KEPT),
    ]
