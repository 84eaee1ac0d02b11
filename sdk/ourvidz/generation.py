"""A job that was asked for, on its way to its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from ourvidz.errors import JobCancelled, JobFailed
from ourvidz.jobs import Job, JobEvent, JobState

if TYPE_CHECKING:
    from ourvidz.async_client import AsyncClient
    from ourvidz.client import Client


class _Story:
    """What is known of the job, and which of its events were seen."""

    def __init__(self, job: Job, *, previews: bool, patience_s: float) -> None:
        self.job = job
        """The job as far as it is known; as it ended, once all events were seen."""
        self._previews = previews
        self._patience_s = patience_s
        self._seen = 0

    def _note(self, event: JobEvent) -> None:
        self._seen = max(self._seen, event.sequence)
        # How it ended is only known with its outputs, when it is asked for.
        if not event.state.terminal:
            self.job = replace(self.job, state=event.state, stage=event.stage, progress=event.progress)

    def _completed(self) -> Job:
        if self.job.state is JobState.FAILED:
            raise JobFailed(self.job)
        if self.job.state is JobState.CANCELLED:
            raise JobCancelled(self.job)
        return self.job


class Generation(_Story):
    """A job on its way. Iterating yields its events as they come, to its end; `result` is the job with its outputs.

    It can be left at any event and gone on with later, with another loop or with `result`. Lives as long as its client.
    """

    def __init__(self, client: Client, job: Job, *, previews: bool, patience_s: float) -> None:
        super().__init__(job, previews=previews, patience_s=patience_s)
        self._client = client

    def __iter__(self) -> Generator[JobEvent, None, None]:
        if self.job.state.terminal and self._seen:
            return
        for event in self._client.watch(
            self.job.id, resume_from=self._seen, previews=self._previews, patience_s=self._patience_s
        ):
            self._note(event)
            yield event
        self.job = self._client.get_job(self.job.id)

    def result(self) -> Job:
        """Wait for the end and return the completed job. Raises `JobFailed` and `JobCancelled`, which have the job."""
        for _ in self:
            pass
        return self._completed()

    def cancel(self) -> None:
        """Cancel the job; one that runs ends within a step, and events go on until then."""
        self._client.cancel_job(self.job.id)


class AsyncGeneration(_Story):
    """As `Generation`: `async for` yields the events, and `await … .result()` is the job with its outputs."""

    def __init__(self, client: AsyncClient, job: Job, *, previews: bool, patience_s: float) -> None:
        super().__init__(job, previews=previews, patience_s=patience_s)
        self._client = client

    async def __aiter__(self) -> AsyncGenerator[JobEvent, None]:
        if self.job.state.terminal and self._seen:
            return
        watch = self._client.watch(
            self.job.id, resume_from=self._seen, previews=self._previews, patience_s=self._patience_s
        )
        async with aclosing(watch) as events:
            async for event in events:
                self._note(event)
                yield event
        self.job = await self._client.get_job(self.job.id)

    async def result(self) -> Job:
        """Wait for the end and return the completed job. Raises `JobFailed` and `JobCancelled`, which have the job."""
        async for _ in self:
            pass
        return self._completed()

    async def cancel(self) -> None:
        """Cancel the job; one that runs ends within a step, and events go on until then."""
        await self._client.cancel_job(self.job.id)
