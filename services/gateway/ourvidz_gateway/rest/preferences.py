"""Reads the `Prefer` header (RFC 7240), of which one preference means something here: `wait`."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_WAIT_S = 55
"""Less than the minute after which most proxies give a silent request up."""

_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*(?:"|$))+')
"""One of a list: commas within quotes don't end it."""

_WAIT = re.compile(r'\s*wait\s*=\s*(?:([0-9]+)|"([0-9]+)")\s*(?:;.*)?', re.IGNORECASE | re.DOTALL)


def wait_of(prefer: Iterable[str]) -> int | None:
    """Return for how many seconds a caller is ready to wait, 1 to `MAX_WAIT_S`; None: not at all.

    What is unknown or can't be read is ignored, as RFC 7240 has it; of several waits the first counts, and one that is
    longer than ours is cut.
    """
    for preference in _PREFERENCE.findall(",".join(prefer)):
        if found := _WAIT.fullmatch(preference):
            digits = (found[1] or found[2]).lstrip("0")
            # A number of any length: past nine digits it is only longer still.
            return min(int(digits[:9]), MAX_WAIT_S) if digits else None
    return None
