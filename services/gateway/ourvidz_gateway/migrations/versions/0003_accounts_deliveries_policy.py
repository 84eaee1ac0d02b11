"""Users' accounts, webhook deliveries, the prompt policy's audit, stream tickets, and what outlives a job."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

# One row for each user: what they can spend and what they may still ask for. Whatever counts for or against a user
# changes this row in the statement that makes it so.
ACCOUNTS = """
CREATE TABLE accounts (
  user_id         text PRIMARY KEY,
  available       bigint NOT NULL DEFAULT 0,             -- credits that can be spent
  reserved        bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),   -- credits held for jobs that have not ended
  welcomed_by     uuid,                                  -- the job, or grant, that brought the credits for new users
  open_jobs       integer NOT NULL DEFAULT 0 CHECK (open_jobs >= 0), -- jobs that have not ended
  rate_at         timestamptz NOT NULL DEFAULT '-infinity', -- when all that was asked for is paid off at the allowed rate
  reference_bytes bigint NOT NULL DEFAULT 0 CHECK (reference_bytes >= 0),
  created_at      timestamptz NOT NULL DEFAULT now()
)
"""

# Jobs from before there were accounts hold no credits: without a `reserve` entry, nothing is settled or given back.
ACCOUNTS_OF_BEFORE = """
INSERT INTO accounts (user_id, open_jobs, reference_bytes)
SELECT user_id, sum(open), sum(bytes) FROM (
  SELECT user_id, count(*) AS open, 0 AS bytes FROM jobs WHERE state IN ('queued', 'processing') GROUP BY user_id
  UNION ALL
  SELECT user_id, 0, sum(size_bytes) FROM reference_images WHERE deleted_at IS NULL GROUP BY user_id
) of_user GROUP BY user_id
"""

# `available` is what was granted, minus what was reserved, plus what was released; `reserved` is what was reserved,
# minus what was settled or released. All amounts but those of grants are positive.
CREDIT_LEDGER = [
    "ALTER TABLE credit_ledger ADD COLUMN request_id text",  # of a grant, under which it is made once
    "ALTER TABLE credit_ledger ADD COLUMN granted_by text",  # the operator
    "CREATE UNIQUE INDEX credit_ledger_request ON credit_ledger (request_id) WHERE request_id IS NOT NULL",
    "CREATE UNIQUE INDEX credit_ledger_of_job ON credit_ledger (job_id, entry) WHERE job_id IS NOT NULL",
]

# Nothing was ever put in the first one.
WEBHOOK_OUTBOX = [
    "DROP TABLE webhook_outbox",
    """
    CREATE TABLE webhook_outbox (
      id               uuid PRIMARY KEY,                 -- the webhook-id, the same over all tries
      job_id           uuid NOT NULL,
      user_id          text NOT NULL,
      target           text NOT NULL CHECK (target IN ('operator', 'job')),
      url              text,                             -- null: wherever the operator's setting says at each try
      host             text NOT NULL GENERATED ALWAYS AS -- '': the operator's; receivers wait for their own alone
                         (coalesce(lower(substring(url FROM '^[^:]+://([^/?#]+)')), '')) STORED,
      tries            integer NOT NULL DEFAULT 0,
      tries_before     integer NOT NULL DEFAULT 0,       -- those before an operator last let it start anew
      next_try_at      timestamptz DEFAULT now(),        -- null: it was delivered or given up
      leased_until     timestamptz NOT NULL DEFAULT '-infinity', -- it is being sent
      last_try_at      timestamptz,
      last_http_status integer,
      last_error       text,
      delivered_at     timestamptz,
      given_up_at      timestamptz,
      retried_at       timestamptz,                      -- when an operator last let it start anew
      created_at       timestamptz NOT NULL DEFAULT now(),
      UNIQUE (job_id, target)
    )
    """,
    "CREATE INDEX webhook_outbox_due ON webhook_outbox (host, next_try_at) WHERE next_try_at IS NOT NULL",
    "CREATE INDEX webhook_outbox_newest ON webhook_outbox (created_at DESC, id DESC)",
    "CREATE INDEX webhook_outbox_given_up ON webhook_outbox (created_at DESC, id DESC) WHERE given_up_at IS NOT NULL",
    "CREATE INDEX webhook_outbox_of_user ON webhook_outbox (user_id, created_at DESC, id DESC)",
]

POLICY_AUDIT = [
    """
    CREATE TABLE policy_audit (
      id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      user_id       text NOT NULL,
      job_id        uuid,                                -- null: it was refused before there was a job
      field         text NOT NULL,                       -- prompt, negative_prompt or enhanced_prompt
      rule          text NOT NULL,
      prompt_sha256 bytea NOT NULL,
      created_at    timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX policy_audit_age ON policy_audit (created_at)",
]

# For EventSource, which can't send a header: whoever holds the ticket may follow this one job for a while.
STREAM_TICKETS = [
    """
    CREATE TABLE stream_tickets (
      ticket_sha256 bytea PRIMARY KEY,
      user_id       text NOT NULL,
      job_id        uuid NOT NULL,
      expires_at    timestamptz NOT NULL
    )
    """,
    "CREATE INDEX stream_tickets_age ON stream_tickets (expires_at)",
]

# The latest preview of jobs that are watched at another gateway than the one that runs them; worth nothing after a crash.
JOB_PREVIEWS = """
CREATE UNLOGGED TABLE job_previews (
  job_id      uuid PRIMARY KEY,
  attempt     integer NOT NULL,
  image_index bigint NOT NULL,
  step        bigint NOT NULL,
  jpeg        bytea NOT NULL,
  updated_at  timestamptz NOT NULL DEFAULT now()
)
"""

JOBS = [
    "ALTER TABLE jobs ADD COLUMN start_by timestamptz",  # it fails if no renderer has begun it by then
    "ALTER TABLE jobs ADD COLUMN quarantined_at timestamptz",
    "ALTER TABLE jobs ADD COLUMN released_as uuid",  # the job that tries it again
    "UPDATE jobs SET quarantined_at = completed_at WHERE quarantined",
    "ALTER TABLE jobs DROP COLUMN quarantined",
    "CREATE INDEX jobs_quarantined ON jobs (quarantined_at DESC, id DESC) WHERE quarantined_at IS NOT NULL",
    "CREATE UNIQUE INDEX jobs_retry_of ON jobs (retry_of) WHERE retry_of IS NOT NULL",  # it is released once
    "CREATE INDEX jobs_ended ON jobs (completed_at) WHERE completed_at IS NOT NULL",
    "ALTER TABLE queue ADD COLUMN start_by timestamptz",  # null once a renderer has begun the job, or without limit
    "CREATE INDEX queue_start_by ON queue (start_by) WHERE start_by IS NOT NULL",
    "ALTER TABLE attempts ADD COLUMN cleaned_at timestamptz",  # when what it left in storage was deleted
    """
    CREATE INDEX attempts_uncleaned ON attempts (ended_at, job_id)
    WHERE cleaned_at IS NULL AND stage = 'rendering' AND outcome <> 'completed'
    """,
    # The event in which a job ended stays as long as the job; these go earlier.
    "CREATE INDEX job_events_passed ON job_events (created_at) WHERE milestone AND state IN ('queued', 'processing')",
]

# Outputs are kept until their user deletes them, which may be long after their job's record is gone.
ASSETS = [
    "ALTER TABLE assets DROP CONSTRAINT assets_job_id_fkey",
    "ALTER TABLE assets ADD COLUMN job_type text",
    "ALTER TABLE assets ADD COLUMN project_id text",
    "UPDATE assets SET job_type = jobs.job_type, project_id = jobs.project_id FROM jobs WHERE jobs.id = assets.job_id",
    "ALTER TABLE assets ALTER COLUMN job_type SET NOT NULL",
    "DROP INDEX assets_of_user",
    "CREATE INDEX assets_of_user ON assets (user_id, created_at DESC, id DESC) WHERE deleted_at IS NULL",
    "CREATE INDEX assets_deleted ON assets (deleted_at, id) WHERE deleted_at IS NOT NULL",
    "DROP INDEX reference_images_of_user",
    "CREATE INDEX reference_images_of_user ON reference_images (user_id, created_at DESC, id DESC) WHERE deleted_at IS NULL",
    # Uploads that are not confirmed have a time ahead of them.
    "CREATE INDEX reference_images_deleted ON reference_images (deleted_at, id) WHERE deleted_at IS NOT NULL",
]


def upgrade() -> None:
    """Change everything."""
    for statement in (
        ACCOUNTS,
        ACCOUNTS_OF_BEFORE,
        *CREDIT_LEDGER,
        *WEBHOOK_OUTBOX,
        *POLICY_AUDIT,
        *STREAM_TICKETS,
        JOB_PREVIEWS,
        *JOBS,
        *ASSETS,
    ):
        op.execute(statement)
