"""The fetching stage: this gateway brings a job's reference pictures into storage, before anything else is done."""

from __future__ import annotations

import asyncio

from ourvidz_gateway.errors import DatabaseUnavailable, StorageUnavailable
from ourvidz_gateway.plan import RenderPlan
from ourvidz_gateway.queue import Claim
from ourvidz_gateway.runs import Advanced, Outcome, Retry, RunContext, unless_cancelled

RETRY_S = 5.0


class FetchRun:
    """One attempt at fetching a job's references. What can't be had is a warning, and never fails the job."""

    def __init__(self, claim: Claim, plan: RenderPlan, context: RunContext) -> None:
        self._claim = claim
        self._plan = plan
        self._context = context

    async def run(self, cancel: asyncio.Event) -> Outcome:
        """Fetch, and put into the plan where the pictures lie."""
        return await unless_cancelled(self._fetch(), cancel)

    async def _fetch(self) -> Outcome:
        claim = self._claim
        try:
            plan, warnings = await self._context.references.settle(
                self._plan, user_id=claim.user_id, job_id=claim.job_id
            )
        except (StorageUnavailable, DatabaseUnavailable) as error:
            return Retry(error.reason, counts=False, delay_s=RETRY_S)
        return Advanced(plan, warnings)
