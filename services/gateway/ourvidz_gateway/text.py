"""What text may hold: control characters, NUL and lone surrogates are kept out of prompts, ids and the database."""

from __future__ import annotations

import json
import re

# Half of a UTF-16 pair: JSON can spell one, UTF-8 (and so PostgreSQL and protobuf) can't.
_SURROGATES = "\ud800-\udfff"

_CONTROL = re.compile(f"[\x00-\x1f\x7f-\x9f{_SURROGATES}]")
_CONTROL_IN_PROSE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_SURROGATES}]")
_UNSTORABLE = re.compile(f"[\x00{_SURROGATES}]")


def is_plain(text: str) -> bool:
    """Whether text is one line without control characters."""
    return _CONTROL.search(text) is None


def is_prose(text: str) -> bool:
    """Whether text has no control characters but newline and tab."""
    return _CONTROL_IN_PROSE.search(text) is None


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can keep the text: it has no NUL and is valid Unicode."""
    return _UNSTORABLE.search(text) is None


def quoted(text: str) -> str:
    """Return text from a request as it may stand in a message: short, in quotes, ASCII alone."""
    return json.dumps(text if len(text) <= 60 else f"{text[:60]}…")
