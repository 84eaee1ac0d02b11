"""What went wrong, as one line that says what to do about it."""

from __future__ import annotations

from ourvidz.errors import InsufficientCredits, OurVidzError, PermissionDenied, Unauthenticated, Unreachable


def describe(error: OurVidzError) -> str:
    """Return the error's text with the bad fields, when to ask again, and what usually helps."""
    parts = [str(error)]
    parts += [f"{bad.field}: {bad.description}" for bad in error.fields if bad.description not in str(error)]
    if error.retry_after_s:
        parts.append(f"try again in {error.retry_after_s:.0f} s")
    if isinstance(error, Unreachable):
        parts.append("start the local stack with `ourvidz up`, or set OURVIDZ_GRPC to the gateway's host:port")
    if isinstance(error, Unauthenticated):
        parts.append("set OURVIDZ_TOKEN; for the local stack: export OURVIDZ_TOKEN=$(ourvidz token NAME)")
    if isinstance(error, PermissionDenied):
        parts.append("for the local stack: export OURVIDZ_TOKEN=$(ourvidz token NAME --operator)")
    if isinstance(error, InsufficientCredits):
        parts.append("an operator gives more with `ourvidz credits grant USER AMOUNT`")
    return "; ".join(part.rstrip(".") for part in parts)
