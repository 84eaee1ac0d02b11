"""Previews: the latest small picture of each running job, for watchers that asked for it, at whichever gateway.

The gateway that renders a job keeps its latest preview in memory, and its own watchers look at that. A gateway with
watchers of a job that is rendered elsewhere says so every few seconds; only while it does, the one that renders writes
the latest preview to the database, from where those gateways read it, one query for all. A preview that is replaced
before anybody looked is never seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import DatabaseUnavailable

log = structlog.get_logger()

TAIL_INTERVAL_S = 0.25
ASK_EVERY_S = 2.0
"""How often a gateway says that it has watchers of a job that is rendered elsewhere."""
ASKED_FOR_S = 6.0
"""How long that holds: two may be lost."""
WRITE_EVERY_S = 0.5
"""How often a job's preview is written at most."""
OUTAGE_PAUSE_S = 2.0

# Not only what is newer: an engine that runs out of memory begins an attempt's picture anew.
_READ = """
SELECT p.job_id, p.attempt, p.image_index, p.step, p.jpeg
FROM job_previews p JOIN unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[])
  AS seen (job_id, attempt, image_index, step) ON seen.job_id = p.job_id
WHERE (p.attempt, p.image_index, p.step) IS DISTINCT FROM (seen.attempt, seen.image_index, seen.step)
"""

_WRITE = """
INSERT INTO job_previews (job_id, attempt, image_index, step, jpeg)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[], $5::bytea[])
ON CONFLICT (job_id) DO UPDATE SET
  attempt = excluded.attempt, image_index = excluded.image_index, step = excluded.step, jpeg = excluded.jpeg,
  updated_at = now()
"""

# Another gateway may write for a later attempt by now.
_DELETE = """
DELETE FROM job_previews p USING unnest($1::uuid[], $2::integer[]) AS over (job_id, attempt)
WHERE p.job_id = over.job_id AND p.attempt <= over.attempt
"""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a job looks like at a step."""

    job_id: UUID
    attempt: int
    image_index: int
    step: int
    jpeg: bytes


class _Picture:
    """What is known of one job that is watched or rendered here."""

    def __init__(self) -> None:
        self.latest: Preview | None = None
        self.watchers = 0
        self.renders = 0
        """Attempts that this gateway renders: the next may begin before the last has quite ended."""
        self.asked_at = float("-inf")
        """When the others were last told that it is watched here."""
        self.wanted_until = float("-inf")
        """Until when others want it."""
        self.written: Preview | None = None
        """What lies in the database for the others."""
        self.written_at = float("-inf")
        self._changed = asyncio.Event()

    @property
    def elsewhere(self) -> bool:
        """Whether it is watched here and rendered elsewhere, if at all."""
        return self.watchers > 0 and self.renders == 0

    def show(self, preview: Preview) -> None:
        """Take the place of the one before."""
        self.latest = preview
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait until there is another one."""
        await self._changed.wait()


class PreviewWatch:
    """One watcher's look at a job. However slow it is, it only ever misses previews, and holds none."""

    def __init__(self, picture: _Picture) -> None:
        self._picture = picture
        self._taken: Preview | None = None

    async def wait(self) -> None:
        """Wait until there is a preview that was not taken yet."""
        while self._picture.latest is None or self._picture.latest is self._taken:
            await self._picture.changed()

    def take(self) -> Preview | None:
        """Return the latest preview, if it was not taken yet."""
        if self._picture.latest is self._taken:
            return None
        self._taken = self._picture.latest
        return self._taken


class Previews:
    """The latest previews of the jobs that are rendered or watched here. Nothing of it outlives a job.

    `ask_others` tells the other gateways that a job is watched here; without it there are none.
    """

    def __init__(self, database: Database, *, ask_others: Callable[[UUID], object] = lambda _: None) -> None:
        self._database = database
        self._ask_others = ask_others
        self._pictures: dict[UUID, _Picture] = {}
        self._over: dict[UUID, int] = {}
        """Attempts whose preview is still to be deleted from the database."""
        self._nudge = asyncio.Event()

    @contextmanager
    def rendering(self, job_id: UUID) -> Iterator[None]:
        """Say that this gateway renders a job; at the end of the block, its previews are forgotten."""
        picture = self._pictures.setdefault(job_id, _Picture())
        picture.renders += 1
        try:
            yield
        finally:
            picture.renders -= 1
            if picture.renders == 0:
                picture.latest = None
                self._withdraw(picture)
            self._tidy(job_id)

    def show(self, preview: Preview) -> None:
        """Take a preview of a job that is rendered here; returns at once."""
        if picture := self._pictures.get(preview.job_id):
            picture.show(preview)
            if picture.wanted_until > _now():
                self._nudge.set()

    def wanted(self, job_id: UUID) -> None:
        """Hear that a job is watched at another gateway."""
        picture = self._pictures.get(job_id)
        if picture and picture.renders:
            picture.wanted_until = _now() + ASKED_FOR_S
            self._nudge.set()

    @contextmanager
    def watching(self, job_id: UUID) -> Iterator[PreviewWatch]:
        """Give a watch of a job's previews: the latest there is now, if any, and those that come."""
        picture = self._pictures.setdefault(job_id, _Picture())
        picture.watchers += 1
        self._nudge.set()
        try:
            yield PreviewWatch(picture)
        finally:
            picture.watchers -= 1
            self._tidy(job_id)

    async def run(self) -> None:
        """Bring previews to and from other gateways, for ever, while there is somebody to bring them to."""
        while True:
            await self._wait_for_work()
            try:
                await self._read()
                await self._write()
                await self._delete()
            except DatabaseUnavailable:
                log.warning("database away, previews from and for other gateways wait")
                await asyncio.sleep(OUTAGE_PAUSE_S)
                self._nudge.set()

    async def _wait_for_work(self) -> None:
        """Wait for a nudge; while others are involved, for no longer than the interval between two looks."""
        involved = any(picture.elsewhere or picture.written for picture in self._pictures.values())
        try:
            async with asyncio.timeout(TAIL_INTERVAL_S if involved else None):
                await self._nudge.wait()
                # What comes at once is done at once, but never in a tighter loop than this.
                self._nudge.clear()
                await asyncio.sleep(TAIL_INTERVAL_S / 10)
        except TimeoutError:
            pass

    async def _read(self) -> None:
        pictures = {job_id: picture for job_id, picture in self._pictures.items() if picture.elsewhere}
        if not pictures:
            return
        now = _now()
        for job_id, picture in pictures.items():
            if picture.asked_at <= now - ASK_EVERY_S:
                picture.asked_at = now
                self._ask_others(job_id)
        seen = [picture.latest for picture in pictures.values()]
        rows = await self._database.fetch(
            _READ,
            list(pictures),
            [preview and preview.attempt for preview in seen],
            [preview and preview.image_index for preview in seen],
            [preview and preview.step for preview in seen],
        )
        for row in rows:
            picture = pictures[row["job_id"]]
            # It may have come here by now, and what is shown here is newer.
            if picture.elsewhere:
                picture.show(Preview(row["job_id"], row["attempt"], row["image_index"], row["step"], row["jpeg"]))

    async def _write(self) -> None:
        now = _now()
        due: list[tuple[_Picture, Preview]] = []
        for picture in self._pictures.values():
            if picture.wanted_until <= now:
                self._withdraw(picture)
            elif picture.latest and picture.latest is not picture.written and picture.written_at <= now - WRITE_EVERY_S:
                due.append((picture, picture.latest))
        if not due:
            return
        for picture, preview in due:
            # Before the answer: if it is lost, the row may be there, and has to be deleted in the end.
            picture.written, picture.written_at = preview, now
            self._over.pop(preview.job_id, None)
        await self._database.execute(
            _WRITE,
            [preview.job_id for _, preview in due],
            [preview.attempt for _, preview in due],
            [preview.image_index for _, preview in due],
            [preview.step for _, preview in due],
            [preview.jpeg for _, preview in due],
        )

    async def _delete(self) -> None:
        if over := self._over:
            await self._database.execute(_DELETE, list(over), list(over.values()))
            for job_id, attempt in list(over.items()):
                if self._over.get(job_id) == attempt:
                    del self._over[job_id]

    def _withdraw(self, picture: _Picture) -> None:
        """Let what lies in the database for others be deleted: nobody asks for it any more, or the render is over."""
        if picture.written:
            self._over[picture.written.job_id] = picture.written.attempt
            picture.written = None
            self._nudge.set()

    def _tidy(self, job_id: UUID) -> None:
        picture = self._pictures[job_id]
        if not picture.watchers and not picture.renders:
            del self._pictures[job_id]


def _now() -> float:
    return asyncio.get_running_loop().time()
