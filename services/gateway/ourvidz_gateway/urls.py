"""URLs that users give us: which of them may be called."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from ourvidz_gateway.text import is_plain, quoted

MAX_CHARACTERS: Final = 2_048

HOST: Final = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
"""A host in lower case, as settings list it: a name, in punycode where it isn't ASCII, or an address; a port may follow."""

DEFAULT_PORTS: Final = {"https": 443, "http": 80}


def url_fault(url: Any, hosts: Collection[str], *, setting: str, allow_http: bool = False) -> str | None:
    """Say why a user's URL can't be used; None when it can.

    `hosts` are exact names, with a port where it isn't the scheme's own; `setting` is where their operator lists them.
    """
    parts = split_url(url)
    if isinstance(parts, str):
        return parts
    if parts.scheme != "https" and not (allow_http and parts.scheme == "http"):
        return "it must start with https:// and name a host"
    if "@" in parts.netloc:
        return "it must not carry a user name or password"
    name = host_of(parts)
    if name not in hosts:
        return f"the host {quoted(name)} is not allowed; its operator lists allowed hosts in {setting}"
    return None


def split_url(url: Any) -> SplitResult | str:
    """Return the parts of a URL that names a host and a port from 0 to 65535, or say why it is none."""
    if not isinstance(url, str) or len(url) > MAX_CHARACTERS:
        return f"it must be a URL of at most {MAX_CHARACTERS:,} characters"
    # Parsers differ on blanks and backslashes, and a host that is checked by one must not be called by another.
    if any(character.isspace() or character == "\\" for character in url) or not is_plain(url):
        return "it has a blank, a backslash or a control character"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it is not a URL"
    if not parts.scheme or not host:
        return "it must start with https:// and name a host"
    return parts


def host_of(parts: SplitResult) -> str:
    """Return a URL's host in lower case, with its port where that isn't the scheme's own."""
    host = parts.hostname or ""
    name = f"[{host}]" if ":" in host else host
    return name if parts.port in (None, DEFAULT_PORTS.get(parts.scheme)) else f"{name}:{parts.port}"
