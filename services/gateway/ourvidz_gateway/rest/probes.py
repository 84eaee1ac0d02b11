"""Whether this process lives, and whether it can serve."""

from __future__ import annotations

from fastapi import APIRouter

from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.rest.context import CurrentFront
from ourvidz_gateway.rest.errors import errors
from ourvidz_gateway.rest.models import Health

router = APIRouter(tags=["probes"])


@router.get("/healthz")
async def healthz() -> Health:
    """Answer as long as the process lives, whatever else is down: a restart would not help."""
    return Health(status="ok")


@router.get("/readyz", responses=errors(DatabaseUnavailable, signed_in=False))
async def readyz(front: CurrentFront) -> Health:
    """Answer while jobs can be taken; 503 when the database is out of reach."""
    await front.jobs.queue_status()
    return Health(status="ok")
