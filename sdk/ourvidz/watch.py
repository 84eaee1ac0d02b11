"""How a job is watched through broken streams: what to ask for next, what is news, and when to give up."""

from __future__ import annotations

import time

from ourvidz.calls import jobs
from ourvidz.calls.call import Call
from ourvidz.errors import Unavailable
from ourvidz.jobs import JobEvent

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
PATIENCE_S = 120.0
"""For how long nothing may be heard of a job before its watcher gives up."""


class Watch:
    """One watch of one job, over as many streams as it takes. Opens none itself."""

    def __init__(self, job_id: str, *, resume_from: int, previews: bool, patience_s: float) -> None:
        self._job_id = job_id
        self._previews = previews
        self._patience_s = patience_s
        self._seen = resume_from
        self._pause_s = FIRST_PAUSE_S
        self._deadline = time.monotonic() + patience_s

    def next_stream(self) -> Call[JobEvent]:
        """Return the stream that goes on after the last event."""
        return jobs.watch_job(self._job_id, after=self._seen, previews=self._previews)

    def is_news(self, event: JobEvent) -> bool:
        """Take note of an event, and say whether the watcher should see it."""
        self._pause_s = FIRST_PAUSE_S
        self._deadline = time.monotonic() + self._patience_s
        if event.sequence > self._seen:
            self._seen = event.sequence
            return True
        # What has no number is a preview, or a heartbeat, which says only that the connection lives.
        return event.sequence == 0 and event.preview_jpeg is not None

    def check_patience(self, error: Unavailable) -> None:
        """Raise the error of a broken stream if its watcher should not wait any longer."""
        if time.monotonic() + self._pause_s > self._deadline:
            raise error
        self._pause_s = max(self._pause_s, error.retry_after_s or 0)

    def next_pause_s(self) -> float:
        """Return how long to wait before the next stream is opened; it grows while nothing is heard."""
        pause_s = self._pause_s
        self._pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        return pause_s
