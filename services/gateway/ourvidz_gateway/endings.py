"""What every statement that ends a job does besides: its user's account is settled, and its webhooks are put out."""

from __future__ import annotations

from ourvidz_gateway.outbox import insert_deliveries


def end_jobs(source: str, *, operator: str, charged: str = "0") -> str:
    """Return the CTEs that settle jobs which this statement ends, and put their webhooks in the outbox.

    Each row of `source` is such a job, with the columns `id`, `user_id` and `webhook_url`. `charged` is an SQL expression
    over these and `price`, the credits that were reserved: what is spent of them; the rest comes back. `operator` is
    true where the operator wants to be told.

    The statement must touch lanes only after `account`, as the one that accepts jobs does, or the two could wait for
    each other: `AFTER_ACCOUNT` in a condition sees to that.
    """
    return f"""
held AS (
  SELECT id, user_id, price, {charged} AS charged
  FROM {source} s, LATERAL (SELECT coalesce(  -- jobs from before there were accounts hold nothing
    (SELECT l.amount FROM credit_ledger l WHERE l.job_id = s.id AND l.entry = 'reserve'), 0) AS price) l
),
account AS (
  UPDATE accounts a SET
    available = a.available + held.price - held.charged,
    reserved = a.reserved - held.price,
    open_jobs = greatest(a.open_jobs - 1, 0)  -- no miscount is worth a job that can't end
  FROM held WHERE a.user_id = held.user_id
  RETURNING a.user_id
),
entries AS (
  INSERT INTO credit_ledger (user_id, job_id, entry, amount)
  SELECT held.user_id, held.id, e.entry, e.amount
  FROM held, LATERAL (VALUES ('settle', held.charged), ('release', held.price - held.charged)) AS e (entry, amount)
  WHERE e.amount > 0
),
deliveries AS ({insert_deliveries(source, operator=operator)})
"""


AFTER_ACCOUNT = "(SELECT count(*) FROM account) IS NOT NULL"
"""A condition that is always true, once the row of `account` is locked."""
