"""The fetching stage, in the gateway itself: a job's reference pictures are downloaded, checked and stored under it."""

from __future__ import annotations

import asyncio

import structlog

from ourvidz_gateway.errors import DatabaseUnavailable, StorageUnavailable
from ourvidz_gateway.plan import RenderPlan
from ourvidz_gateway.queue import Claim
from ourvidz_gateway.runs import Advanced, Outcome, Retry, RunContext, unless_cancelled

log = structlog.get_logger()

OUTAGE_DELAY_S = 5.0
"""How long a job waits when its pictures can't be stored."""


class FetchRun:
    """One attempt at fetching a job's reference pictures. Done again, it finds what is stored already."""

    def __init__(self, claim: Claim, plan: RenderPlan, context: RunContext) -> None:
        self._claim = claim
        self._plan = plan
        self._references = context.references

    async def run(self, cancel: asyncio.Event) -> Outcome:
        """Settle the plan's references; what can't be had becomes a warning, and the job goes on without it."""
        return await unless_cancelled(self._settle(), cancel)

    async def _settle(self) -> Outcome:
        claim = self._claim
        try:
            plan, warnings = await self._references.settle(self._plan, user_id=claim.user_id, job_id=claim.job_id)
        except (StorageUnavailable, DatabaseUnavailable) as error:
            log.warning("reference pictures can't be stored, the job waits", reason=error.reason)
            return Retry(error.reason, counts=False, delay_s=OUTAGE_DELAY_S)
        return Advanced(plan, warnings)
