"""The schema of the queue, the event log and the records of users."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

JOBS = """
CREATE TABLE jobs (
  id                  uuid PRIMARY KEY,
  user_id             text NOT NULL,
  job_type            text NOT NULL,
  kind                text NOT NULL,                 -- of the renderer: sdxl, wan
  state               text NOT NULL DEFAULT 'queued'
                      CHECK (state IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
  stages              text[] NOT NULL,               -- the plan: fetch, enhance, render in this order, as needed
  stage_index         smallint NOT NULL DEFAULT 1,   -- which of them is next or runs, from 1
  position            bigint NOT NULL,               -- its place in the order of acceptance
  attempt             integer NOT NULL DEFAULT 0,    -- the number of the attempt last begun
  failures            integer NOT NULL DEFAULT 0,    -- attempts that count against it
  request             jsonb NOT NULL,                -- all that rendering needs, settled at accept
  metadata            jsonb NOT NULL,                -- what came in, as it is returned
  result              jsonb NOT NULL DEFAULT '{}',   -- what rendering adds to the metadata
  warnings            text[] NOT NULL DEFAULT '{}',
  credits             integer NOT NULL,
  project_id          text,
  video_id            text,
  image_id            text,
  webhook_url         text,
  retry_of            uuid,
  quarantined         boolean NOT NULL DEFAULT false,
  error_message       text,
  cancel_requested_at timestamptz,
  created_at          timestamptz NOT NULL DEFAULT now(),
  started_at          timestamptz,                   -- when the first stage began
  deadline_at         timestamptz,                   -- set when rendering first begins
  completed_at        timestamptz                    -- when it ended, in whichever state
)
"""

# One row for each stage that waits, deleted when it is claimed. `ready` is false while a retry backs off, so that the
# head of a lane is always a row that can run.
QUEUE = """
CREATE TABLE queue (
  job_id       uuid PRIMARY KEY,
  kind         text NOT NULL,
  user_id      text NOT NULL,
  position     bigint NOT NULL,
  cost         double precision NOT NULL,            -- the work that it brings its lane, in denoised images
  ready        boolean NOT NULL DEFAULT true,
  ready_at     timestamptz NOT NULL DEFAULT now(),
  enqueued_at  timestamptz NOT NULL DEFAULT now(),
  last_address text                                  -- where the last attempt failed: tried last
)
"""

# One lane for each kind and user. The next job is the head of the waiting lane with the lowest virtual time: what its
# user has already been given. `head_position` bounds the search for the head from below, past rows already claimed.
LANES = """
CREATE TABLE lanes (
  kind          text NOT NULL,
  user_id       text NOT NULL,
  waiting       bigint NOT NULL,
  virtual_time  double precision NOT NULL,
  head_position bigint NOT NULL,
  claimed_at    timestamptz,
  PRIMARY KEY (kind, user_id)
)
"""

# Who runs what, where. (job_id, attempt, session_id) is the fence: whoever writes for a job proves that all three
# still stand and that the attempt has not ended.
ATTEMPTS = """
CREATE TABLE attempts (
  job_id      uuid NOT NULL,
  attempt     integer NOT NULL,
  stage       text NOT NULL,
  kind        text NOT NULL,
  address     text NOT NULL,
  slot        integer NOT NULL,
  session_id  uuid NOT NULL,
  started_at  timestamptz NOT NULL DEFAULT now(),
  accepted_at timestamptz,                           -- when the renderer said that it has it
  ended_at    timestamptz,
  outcome     text CHECK (outcome IN ('completed', 'failed', 'handed_back', 'cancelled')),
  reason      text,
  PRIMARY KEY (job_id, attempt)
)
"""

# One lease for each gateway process, on the database's clock.
GATEWAY_SESSIONS = """
CREATE TABLE gateway_sessions (
  id          uuid PRIMARY KEY,
  name        text NOT NULL,
  started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  lease_until timestamptz NOT NULL,
  ended_at    timestamptz                            -- released by itself, or declared dead by another
)
"""

RENDERER_SLOTS = """
CREATE TABLE renderer_slots (
  kind        text NOT NULL,
  address     text NOT NULL,
  slot        integer NOT NULL,
  job_id      uuid,                                  -- null: free
  attempt     integer,
  cool_until  timestamptz NOT NULL DEFAULT '-infinity', -- it said that it was busy
  released_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (kind, address, slot)
)
"""

# The numbers of a job's events have no gaps. Steps are deleted some time after the job has ended; milestones stay.
JOB_EVENTS = """
CREATE TABLE job_events (
  job_id        uuid NOT NULL,
  sequence      bigint NOT NULL,
  milestone     boolean NOT NULL,
  state         text NOT NULL,
  stage         text,
  progress      smallint NOT NULL,
  attempt       integer NOT NULL,
  step          integer,
  step_count    integer,
  image_index   integer,
  image_count   integer,
  render_index  bigint,                              -- the renderer's own number of the event: none is stored twice
  error_message text,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (job_id, sequence)
)
"""

ASSETS = """
CREATE TABLE assets (
  id         uuid PRIMARY KEY,
  job_id     uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
  user_id    text NOT NULL,
  index      integer NOT NULL,
  bucket     text NOT NULL,
  key        text NOT NULL,
  mime_type  text NOT NULL,
  size_bytes bigint NOT NULL,
  sha256     bytea NOT NULL,
  width_px   integer NOT NULL,
  height_px  integer NOT NULL,
  seed       bigint NOT NULL,
  duration_s double precision,
  created_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,                            -- its object is still to be deleted
  UNIQUE (job_id, index)
)
"""

REFERENCE_IMAGES = """
CREATE TABLE reference_images (
  id         uuid PRIMARY KEY,
  user_id    text NOT NULL,
  bucket     text NOT NULL,
  key        text NOT NULL,
  mime_type  text NOT NULL,
  size_bytes bigint NOT NULL,
  sha256     bytea NOT NULL,
  width_px   integer NOT NULL,
  height_px  integer NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz
)
"""

CREDIT_LEDGER = """
CREATE TABLE credit_ledger (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id    text NOT NULL,
  job_id     uuid,
  entry      text NOT NULL CHECK (entry IN ('grant', 'reserve', 'settle', 'release')),
  amount     bigint NOT NULL,
  note       text,
  created_at timestamptz NOT NULL DEFAULT now()
)
"""

WEBHOOK_OUTBOX = """
CREATE TABLE webhook_outbox (
  id              uuid PRIMARY KEY,                  -- the webhook-id, the same over all tries
  job_id          uuid NOT NULL,
  url             text NOT NULL,
  tries           integer NOT NULL DEFAULT 0,
  next_try_at     timestamptz NOT NULL DEFAULT now(),
  delivered_at    timestamptz,
  given_up_at     timestamptz,
  last_error      text,
  created_at      timestamptz NOT NULL DEFAULT now()
)
"""

IDEMPOTENCY_KEYS = """
CREATE TABLE idempotency_keys (
  user_id        text NOT NULL,
  key            text NOT NULL,
  request_sha256 bytea NOT NULL,
  job_id         uuid NOT NULL,
  created_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (user_id, key)
)
"""

INDEXES = [
    "CREATE INDEX jobs_of_user ON jobs (user_id, created_at DESC, id DESC)",
    "CREATE INDEX jobs_running ON jobs (kind) WHERE state = 'processing'",
    "CREATE INDEX queue_heads ON queue (kind, user_id, position) WHERE ready",
    "CREATE INDEX queue_delayed ON queue (ready_at) WHERE NOT ready",
    "CREATE INDEX queue_oldest ON queue (enqueued_at)",
    "CREATE INDEX lanes_next ON lanes (kind, virtual_time, claimed_at NULLS FIRST) WHERE waiting > 0",
    "CREATE INDEX lanes_latest ON lanes (kind, virtual_time)",
    "CREATE INDEX attempts_of_session ON attempts (session_id) WHERE ended_at IS NULL",
    "CREATE UNIQUE INDEX attempts_one_live ON attempts (job_id) WHERE ended_at IS NULL",
    "CREATE INDEX gateway_sessions_live ON gateway_sessions (lease_until) WHERE ended_at IS NULL",
    "CREATE INDEX renderer_slots_free ON renderer_slots (kind, released_at) WHERE job_id IS NULL",
    "CREATE INDEX job_events_steps ON job_events (created_at) WHERE NOT milestone",
    "CREATE INDEX assets_of_user ON assets (user_id, created_at DESC, id) WHERE deleted_at IS NULL",
    "CREATE INDEX reference_images_of_user ON reference_images (user_id, created_at DESC) WHERE deleted_at IS NULL",
    "CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at)",
    "CREATE INDEX credit_ledger_of_user ON credit_ledger (user_id)",
    "CREATE INDEX webhook_outbox_due ON webhook_outbox (next_try_at) WHERE delivered_at IS NULL AND given_up_at IS NULL",
]


def upgrade() -> None:
    """Create everything."""
    op.execute("CREATE SEQUENCE job_positions")
    for table in (
        JOBS,
        QUEUE,
        LANES,
        ATTEMPTS,
        GATEWAY_SESSIONS,
        RENDERER_SLOTS,
        JOB_EVENTS,
        ASSETS,
        REFERENCE_IMAGES,
        CREDIT_LEDGER,
        WEBHOOK_OUTBOX,
        IDEMPOTENCY_KEYS,
    ):
        op.execute(table)
    for index in INDEXES:
        op.execute(index)
