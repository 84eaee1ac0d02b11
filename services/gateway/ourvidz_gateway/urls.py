"""URLs that users give us: which of them may be called."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from ourvidz_gateway.text import is_plain, quoted

MAX_CHARACTERS = 2_048


def url_fault(url: Any, hosts: Collection[str], *, setting: str) -> str | None:
    """Say why a user's URL can't be used; None when it can. `hosts` are exact names, with a port where it isn't 443."""
    if not isinstance(url, str) or len(url) > MAX_CHARACTERS:
        return f"it must be a URL of at most {MAX_CHARACTERS:,} characters"
    # Parsers differ on blanks and backslashes, and a host that is checked by one must not be called by another.
    if any(character.isspace() or character == "\\" for character in url) or not is_plain(url):
        return "it has a blank, a backslash or a control character"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "it is not a URL"
    if parts.scheme != "https" or not host:
        return "it must start with https:// and name a host"
    if "@" in parts.netloc:
        return "it must not carry a user name or password"
    name = host if port in (None, 443) else f"{host}:{port}"
    if name not in hosts:
        return f"the host {quoted(name)} is not allowed; its operator lists allowed hosts in {setting}"
    return None
