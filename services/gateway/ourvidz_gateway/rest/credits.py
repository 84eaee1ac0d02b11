"""What the caller can spend."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ourvidz_gateway.rest.context import Caller, CurrentFront
from ourvidz_gateway.rest.errors import ERRORS

router = APIRouter(prefix="/api", tags=["credits"], responses=ERRORS)


class CreditsReply(BaseModel):
    """The caller's credits."""

    available: int = Field(description="Credits that can be spent.", examples=[998])
    reserved: int = Field(description="Credits held for jobs that have not ended.", examples=[2])


@router.get("/credits")
async def get_credits(front: CurrentFront, caller: Caller) -> CreditsReply:
    """Tell how many credits the caller can spend, and how many are held for jobs that have not ended."""
    balance = await front.parts.credits.balance(caller.user_id)
    return CreditsReply(available=balance.available, reserved=balance.reserved)
