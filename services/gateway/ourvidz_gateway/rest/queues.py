"""How full the queues are."""

from __future__ import annotations

from fastapi import APIRouter

from ourvidz_gateway.rest.context import Caller, CurrentFront
from ourvidz_gateway.rest.errors import ERRORS
from ourvidz_gateway.rest.models import QueueStatusReply

router = APIRouter(prefix="/api", tags=["queues"], responses=ERRORS)


@router.get("/queue-status")
async def get_queue_status(front: CurrentFront, _caller: Caller) -> QueueStatusReply:
    """Tell how many jobs wait and run in each queue. The figures are at most a second old."""
    return QueueStatusReply.of(await front.jobs.queue_status())
