"""The dispatcher: claims stages for free slots, runs them, and hands them back when the gateway leaves.

It is woken by accepted jobs, stages that follow others, freed slots and renderers that become ready, here or at another
gateway. A slow sweep, one for all kinds, covers wakes that were lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from uuid import UUID

import structlog

from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.jobs import JobStage, JobState, Kind
from ourvidz_gateway.queue import Claim, Queue, Waiting
from ourvidz_gateway.runs import Retry, Run, RunContext, StageRunFactory, nobody_was_free
from ourvidz_gateway.sessions import fetch_address

log = structlog.get_logger()

SWEEP_S = 5.0
OUTAGE_PAUSE_S = 1.0


class Dispatcher:
    """All that one gateway runs. `make_runs` makes the run of each stage; `tell_others` wakes other dispatchers."""

    def __init__(
        self,
        queue: Queue,
        context: RunContext,
        *,
        make_runs: Mapping[JobStage, StageRunFactory],
        tell_others: Callable[[Kind], None],
    ) -> None:
        self._queue = queue
        self._context = context
        self._make_runs = make_runs
        self._tell_others = tell_others
        self._wakes = {kind: asyncio.Event() for kind in Kind}
        self._sweep = asyncio.Event()
        self._draining = False
        self._runs: dict[UUID, tuple[Run, asyncio.Task[None]]] = {}

    @property
    def jobs(self) -> frozenset[UUID]:
        """The jobs that this gateway runs."""
        return frozenset(self._runs)

    def wake(self, kind: Kind) -> None:
        """Look for work of this kind now."""
        self._wakes[kind].set()

    def tend_soon(self) -> None:
        """Look soon at what waits for a moment rather than for a server: one has come that may be the next."""
        self._sweep.set()

    def drain(self) -> None:
        """Claim nothing more: the gateway is about to leave. What runs goes on."""
        self._draining = True

    def take_over(self, claims: list[Claim]) -> None:
        """Run attempts of a gateway that is gone."""
        for claim in claims:
            self._start(claim)

    def cancel(self, job_id: UUID) -> bool:
        """Cancel a job if it runs here; return whether it does."""
        found = self._runs.get(job_id)
        if found:
            found[0].cancel()
        return found is not None

    def abandon(self) -> None:
        """Stop watching all renders at once, leaving them to whoever owns them now."""
        for _, task in self._runs.values():
            task.cancel()

    async def run(self) -> None:
        """Dispatch for ever; when cancelled, abandon what runs."""
        try:
            async with asyncio.TaskGroup() as group:
                for kind in Kind:
                    group.create_task(self._dispatch(kind), name=f"dispatch {kind}")
                group.create_task(self._tend(), name="tend the queue")
        finally:
            self.abandon()
            await asyncio.gather(*(task for _, task in self._runs.values()), return_exceptions=True)

    async def _dispatch(self, kind: Kind) -> None:
        wake = self._wakes[kind]
        while True:
            await wake.wait()
            wake.clear()
            try:
                while addresses := self._addresses(kind):
                    claimed = await self._queue.claim(kind, addresses, self._context.session_id())
                    if claimed is None:
                        break
                    claim, event = claimed
                    self._start(claim)
                    self._context.feeds.publish([event])
            except DatabaseUnavailable:
                log.warning("database away, dispatch waits", kind=kind)
                await asyncio.sleep(OUTAGE_PAUSE_S)
                wake.set()

    def _addresses(self, kind: Kind) -> list[str]:
        """Return where work of a kind can be done now."""
        if self._draining:
            return []
        if kind is Kind.FETCHER:
            return [fetch_address(self._context.session_id())]
        return self._context.renderers.ready(kind)

    def _start(self, claim: Claim) -> None:
        found = self._runs.get(claim.job_id)
        if found and found[0].claim.attempt == claim.attempt:
            if found[0].session_id == self._context.session_id():
                return  # it is attached to already
            # Begun when our session had ended and the next did not stand yet: nothing that it records counts.
            found[1].cancel()
        run = Run(claim, self._make_runs[claim.stage], self._context)
        task = asyncio.create_task(self._supervise(run), name=f"run {claim.render_id}")
        self._runs[claim.job_id] = (run, task)

    async def _supervise(self, run: Run) -> None:
        """Run one attempt to its end. A bug of ours in it costs the attempt, not the job or the gateway."""
        claim = run.claim
        with structlog.contextvars.bound_contextvars(job_id=str(claim.job_id), attempt=claim.attempt):
            try:
                outcome = await run.run()
            except Exception:
                log.exception("a run failed in the gateway")
                outcome = Retry("GATEWAY_ERROR", counts=True)
                await run.record(outcome)
            finally:
                self._forget(run)
        if isinstance(outcome, Retry) and outcome.cool_s:
            asyncio.get_running_loop().call_later(outcome.cool_s, self.wake, claim.kind)
        self.wake(claim.kind)
        if kind := run.next_kind(outcome):
            self.tend_soon()
            self.wake(kind)
            self._tell_others(kind)

    def _forget(self, run: Run) -> None:
        # A job that was retried at once may already run again under the same id.
        found = self._runs.get(run.claim.job_id)
        if found and found[0] is run:
            del self._runs[run.claim.job_id]

    async def _tend(self) -> None:
        """Let delayed retries through when they are due, find what waits, end what waited too long."""
        due_in_s: float | None = 0.0
        while True:
            await _wait(self._sweep, SWEEP_S if due_in_s is None else min(SWEEP_S, max(due_in_s, 0.05)))
            try:
                kinds, due_in_s = await self._queue.promote()
                for kind in {*kinds, *await self._queue.waiting()}:
                    self.wake(kind)
                for waiting, limit_s in await self._queue.late():
                    await self._give_up(waiting, f"No renderer began the job within {round(limit_s, 3):g} seconds.")
                for waiting, kind in await self._queue.overdue(self._context.wait_limit_s):
                    await self._give_up(waiting, nobody_was_free(kind, self._context.wait_limit_s))
            except DatabaseUnavailable:
                due_in_s = OUTAGE_PAUSE_S

    async def _give_up(self, waiting: Waiting, message: str) -> None:
        event = await self._queue.withdraw(
            waiting.job_id, state=JobState.FAILED, message=message, waiting_since=waiting.since
        )
        if event:
            log.warning("a job waited too long", job_id=str(waiting.job_id))
            self._context.feeds.publish([event])


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for the event, but no longer than the timeout; clear it."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
    event.clear()
