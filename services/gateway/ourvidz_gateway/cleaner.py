"""The cleaner: keeps the retention table, and deletes from storage what nobody needs any more.

Objects go before the rows that name them, so that whatever interrupts it, the next round finds the rest. All of it can
be done twice without harm.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.plan import user_folder
from ourvidz_gateway.references import BUCKET
from ourvidz_gateway.retention import Rule, rules
from ourvidz_gateway.settings import GatewaySettings
from ourvidz_serving.storage import (
    AccessDenied,
    InvalidKey,
    LocalStore,
    ObjectStore,
    StoreMisconfigured,
    StoreUnavailable,
)

log = structlog.get_logger()

ROUND_S: Final = 60.0
"""From one round to the next, when nobody asks for one."""
SOON_S: Final = 5.0
"""From a round that another gateway kept from us, or that the database did, to the next."""
BREATH_S: Final = 1.0
"""Between two rounds at the least."""

FILES_AT_ONCE: Final = 100
ROWS_AT_ONCE: Final = 5_000
BATCHES: Final = 20
"""Batches of one chore in one round, so that a long one does not keep the others waiting."""

LEFTOVERS_AFTER: Final = timedelta(minutes=30)
"""An attempt's files are looked through this long after its end: by then, no renderer still writes for it."""
STAGED_KEPT: Final = timedelta(hours=1)
"""Files of a local store that are being written are at most this old."""

# `deleted_at` lies ahead for uploads that are not confirmed yet.
_DELETED = {
    table: f"""
    SELECT id, bucket, key, deleted_at AS moment FROM {table}
    WHERE deleted_at <= now() AND (deleted_at, id) > ($1, $2)
    ORDER BY deleted_at, id LIMIT $3
    """
    for table in ("assets", "reference_images")
}

_FORGET = {table: f"DELETE FROM {table} WHERE id = ANY($1::uuid[]) AND deleted_at <= now()" for table in _DELETED}

_ATTEMPTS = """
SELECT a.job_id AS id, a.attempt, a.ended_at AS moment, j.user_id, j.request->>'bucket' AS bucket
FROM attempts a JOIN jobs j ON j.id = a.job_id
WHERE a.cleaned_at IS NULL AND a.stage = 'rendering' AND a.outcome <> 'completed'
  AND a.ended_at < now() - $4::interval AND (a.ended_at, a.job_id) > ($1, $2)
ORDER BY a.ended_at, a.job_id LIMIT $3
"""

_CLEANED = """
UPDATE attempts SET cleaned_at = now() FROM unnest($1::uuid[], $2::integer[]) AS done (job_id, attempt)
WHERE attempts.job_id = done.job_id AND attempts.attempt = done.attempt
"""

# A webhook that is still to be sent says what its job's record says.
# A job that was released from quarantine uses the references that were fetched for the one it repeats.
_JOBS = """
SELECT j.id, j.completed_at AS moment, j.user_id, j.request->>'bucket' AS bucket FROM jobs j
WHERE j.completed_at < now() - $4::interval AND (j.completed_at, j.id) > ($1, $2)
  AND NOT EXISTS (SELECT FROM webhook_outbox o WHERE o.job_id = j.id AND o.next_try_at IS NOT NULL)
  AND NOT EXISTS (SELECT FROM jobs r WHERE r.retry_of = j.id)
ORDER BY j.completed_at, j.id LIMIT $3
"""

_FORGET_JOBS = """
WITH events AS (DELETE FROM job_events WHERE job_id = ANY($1::uuid[])),
tried AS (DELETE FROM attempts WHERE job_id = ANY($1::uuid[])),
shown AS (DELETE FROM job_previews WHERE job_id = ANY($1::uuid[]))
DELETE FROM jobs WHERE id = ANY($1::uuid[])
"""

# Also of assets that are deleted: their own row sees to it that the object goes.
_ASSETS_OF = "SELECT key FROM assets WHERE job_id = $1 AND bucket = $2"

_BEGINNING = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))


class Cleaner:
    """Cleans up after all gateways; of several, one at a time does."""

    def __init__(self, database: Database, store: ObjectStore, settings: GatewaySettings) -> None:
        self._database = database
        self._store = store
        self._rules = rules(settings)
        # The same idempotency key answers with the same job for as long as the key is kept.
        self._keep_jobs = max(settings.keep_jobs, settings.keep_idempotency_keys)
        self._woken = asyncio.Event()
        self._left = False
        """Whether this round has left something that can be done at once."""
        self._away = False
        """Whether the storage was out of reach in this round."""
        self._removed: Counter[str] = Counter()

    def wake(self) -> None:
        """Begin the next round now: a user has deleted something."""
        self._woken.set()

    async def run(self) -> None:
        """Clean for ever, now and then, through outages of the database and the storage."""
        pause_s, owed = ROUND_S, False
        while True:
            owed = await self._pause(pause_s) or owed
            try:
                async with self._database.alone("clean") as alone:
                    pause_s = 0.0 if alone and await self.clean() else ROUND_S
            except DatabaseUnavailable:
                log.warning("database away, cleaning waits")
                pause_s = SOON_S
            else:
                owed = owed and not alone
                # Whoever cleans now may have been past what we were woken for.
                pause_s = SOON_S if owed else pause_s
            await asyncio.sleep(BREATH_S)

    async def clean(self) -> bool:
        """Do one round of all that is due; return whether some of it is left that can be done at once.

        Raises `DatabaseUnavailable`.
        """
        self._left, self._away = False, False
        self._removed.clear()
        chores: list[Callable[[], Awaitable[None]]] = [
            self._delete_files,
            self._delete_leftovers,
            *(partial(self._delete_rows, rule) for rule in self._rules),
            self._delete_jobs,
            self._delete_staged,
        ]
        for chore in chores:
            try:
                await chore()
            except DatabaseUnavailable:
                raise
            except Exception:  # what is wrong with one kind of thing must not keep all others from being cleaned
                log.exception("the cleaner could not do one of its chores")
        if removed := {what: count for what, count in self._removed.items() if count}:
            log.info("cleaned", removed=removed)
        # What no store lets go of would be tried for ever without a pause.
        return self._left and bool(removed)

    async def _pause(self, pause_s: float) -> bool:
        """Wait until we are woken, but not for longer than this; return whether we were."""
        try:
            async with asyncio.timeout(pause_s):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    async def _delete_files(self) -> None:
        """Delete what users have deleted, and uploads that were never confirmed."""
        for table, select in _DELETED.items():
            async for rows in self._batches(select):
                gone = [row["id"] for row in rows if await self._remove(row["bucket"], [row["key"]])]
                await self._database.execute(_FORGET[table], gone)
                self._removed[table] += len(gone)

    async def _delete_leftovers(self) -> None:
        """Delete what attempts stored that came to nothing."""
        async for rows in self._batches(_ATTEMPTS, LEFTOVERS_AFTER):
            done = [row for row in rows if await self._remove_outputs(row, f"{row['attempt']}/")]
            await self._database.execute(_CLEANED, [row["id"] for row in done], [row["attempt"] for row in done])
            self._removed["attempts"] += len(done)

    async def _delete_jobs(self) -> None:
        """Delete the records of jobs that ended long ago, with all that is stored for them but their assets."""
        async for rows in self._batches(_JOBS, self._keep_jobs):
            gone = [
                row["id"]
                for row in rows
                if await self._remove_under(BUCKET, _folder(row)) and await self._remove_outputs(row, "")
            ]
            await self._database.execute(_FORGET_JOBS, gone)
            self._removed["jobs"] += len(gone)

    async def _delete_rows(self, rule: Rule) -> None:
        for _ in range(BATCHES):
            gone = await self._database.fetch(f"{rule.statement} RETURNING true", rule.age, ROWS_AT_ONCE)
            self._removed[rule.rows] += len(gone)
            if len(gone) < ROWS_AT_ONCE:
                return
        self._left = True

    async def _delete_staged(self) -> None:
        # An S3 server keeps cut-off uploads to itself, and has a lifecycle rule for them.
        if isinstance(self._store, LocalStore):
            with self._reaching("the local store"):
                self._removed["staged files"] += await self._store.remove_unfinished(STAGED_KEPT)

    async def _batches(self, select: str, *more: Any) -> AsyncGenerator[list[asyncpg.Record], None]:
        """Yield the rows of a statement, a batch at a time, each row once; those that stay are met in the next round."""
        after = _BEGINNING
        for _ in range(BATCHES):
            rows = [] if self._away else await self._database.fetch(select, *after, FILES_AT_ONCE, *more)
            if rows:
                yield rows
            if len(rows) < FILES_AT_ONCE:
                return
            after = rows[-1]["moment"], rows[-1]["id"]
        self._left = True

    async def _remove_outputs(self, row: asyncpg.Record, folder: str) -> bool:
        """Delete what lies in a folder of a job's outputs, but for what is an asset; return whether it is gone."""
        bucket = row["bucket"]
        assets = await self._database.fetch(_ASSETS_OF, row["id"], bucket)
        return await self._remove_under(bucket, _folder(row) + folder, but={asset["key"] for asset in assets})

    async def _remove_under(self, bucket: str, prefix: str, but: Collection[str] = ()) -> bool:
        """Delete all objects whose keys begin so, but for some; return whether they are gone."""
        keys: Sequence[str] | None = None
        if self._away:
            return False
        with self._reaching(bucket):
            keys = await self._store.list(bucket, prefix)
        return keys is not None and await self._remove(bucket, [key for key in keys if key not in but])

    async def _remove(self, bucket: str, keys: Iterable[str]) -> bool:
        """Delete objects; return whether they are gone."""
        if self._away:
            return False
        with self._reaching(bucket):
            for key in keys:
                await self._store.delete(bucket, key)
            return True
        return False

    @contextmanager
    def _reaching(self, what: str) -> Iterator[None]:
        """Let the rest of a round go on when the store does not do what it is asked."""
        try:
            yield
        except StoreUnavailable as error:
            log.warning("storage away, deleting waits", error=str(error))
            self._away = True
        except (AccessDenied, InvalidKey, StoreMisconfigured) as error:
            # It may be one bucket alone: the others come next.
            log.error("the object storage refuses to delete", where=what, error=str(error))


def _folder(row: asyncpg.Record) -> str:
    return f"{user_folder(row['user_id'])}/{row['id']}/"
