"""Lists as callers ask for them: in pages, newest first, and of one job type where they say so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ourvidz.errors import InvalidRequest, UnknownJobType
from ourvidz.testing.admission import CONTROL
from ourvidz.testing.catalog import JOB_TYPES
from ourvidz.testing.refusals import bad_field

DEFAULT_PAGE_SIZE = 20
LONGEST_PAGE = 100

Item = TypeVar("Item")


def page_of(
    items: Iterable[Item], number_of: Callable[[Item], int], *, page_size: int, page_token: str
) -> tuple[list[Item], str]:
    """Return a page, newest first, and the token of the next. Raises `InvalidRequest` for a bad size or token."""
    page_size = page_size or DEFAULT_PAGE_SIZE
    if not 1 <= page_size <= LONGEST_PAGE:
        raise bad_field(InvalidRequest, f"The page size must be from 1 to {LONGEST_PAGE}.", "page_size")
    if page_token and not page_token.isdecimal():
        raise bad_field(InvalidRequest, "The page token is not one that a list returned.", "page_token")
    before = int(page_token) if page_token else math.inf
    found = sorted((item for item in items if number_of(item) < before), key=number_of, reverse=True)
    page = found[:page_size]
    return page, str(number_of(page[-1])) if len(found) > page_size else ""


def check_filters(request: Any) -> None:
    """Raise the error for filters of a list that can find nothing: no job type, or no id that anything could have."""
    for field in ("project_id", "video_id", "image_id"):
        if CONTROL.search(getattr(request, field, "")):
            raise bad_field(InvalidRequest, f"{field} has a control character.", field)
    name = request.job_type
    if name and name not in JOB_TYPES:
        message = f"There is no such job type. Valid job types: {', '.join(JOB_TYPES)}."
        raise bad_field(UnknownJobType, message, "job_type")
