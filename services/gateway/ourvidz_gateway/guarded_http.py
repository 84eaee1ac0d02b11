"""The one client that calls URLs which users gave us, so that no such URL makes the gateway call its own network.

Every address that a host resolves to must be a public one, and what is called is the address that was checked, not
the name: a name that resolves to something else a moment later changes nothing. A redirect is a new URL, checked by
all the same rules.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeVar
from urllib.parse import SplitResult, urljoin

import httpx

from ourvidz_gateway.urls import DEFAULT_PORTS, host_of, split_url, url_fault

MAX_REDIRECTS: Final = 3
TIME_LIMIT_S: Final = 30.0
"""For all of a call: names, connections, redirects and the last byte."""
CONNECT_TIMEOUT_S: Final = 10.0
"""For one address, so that another one of the same host gets its turn; never more than half of all the time."""
BODY_TIME_S: Final = 1.0
"""For the body that follows a status which has said all."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Returns a host's addresses, or raises `OSError`."""

_SPECIAL_IPV4: Final = IPv4Network("192.0.0.0/24")
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_SPECIAL_IPV6: Final = (IPv6Network("2002::/16"), IPv6Network("3fff::/20"))
_NAT64: Final = IPv6Network("64:ff9b::/96")


T = TypeVar("T")


class FetchError(Exception):
    """A URL could not be called; the text says why, in words for whoever gave the URL."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered to a POST."""

    status: int
    retry_after: str | None
    """The header as it came."""


class GuardedClient:
    """Calls users' URLs. Holds no connection between calls, keeps no cookie and heeds no proxy variable.

    `hosts` are the hosts that may be called, see `url_fault`; `setting` is where their operator lists them.
    `allow_private` lets private addresses and plain http through. `resolve` takes the place of the system's resolver.
    """

    def __init__(
        self,
        hosts: Collection[str],
        *,
        setting: str,
        allow_private: bool = False,
        time_limit_s: float = TIME_LIMIT_S,
        resolve: Resolve | None = None,
    ) -> None:
        self._hosts = hosts
        self._setting = setting
        self._allow_private = allow_private
        self._time_limit_s = time_limit_s
        self._resolve = resolve or _resolve
        # Made once: it reads all root certificates. A private network's own are named in SSL_CERT_FILE.
        self._tls = httpx.create_ssl_context()

    async def fetch(self, url: str, *, max_bytes: int) -> bytes:
        """Return what GET answers at a URL, or where it redirects to. Raises `FetchError`."""
        async with self._in_time():
            for _ in range(MAX_REDIRECTS + 1):
                answer = await self._get(self._checked(url), max_bytes)
                if isinstance(answer, bytes):
                    return answer
                url = _joined(url, answer.location)
        raise FetchError(f"it redirects more than {MAX_REDIRECTS} times")

    async def post(self, url: str, content: bytes, *, headers: Mapping[str, str], max_bytes: int) -> Answer:
        """Send something to a URL and return how that was answered, with whatever status. Raises `FetchError`.

        A redirect is an answer like any other, not followed. Of the answer's body, at most `max_bytes` are read and
        none is kept.
        """

        async def ask(parts: SplitResult, address: str) -> Answer:
            async with self._asking("POST", parts, address, headers=headers, content=content) as response:
                # What has been answered stays so, however the body goes on.
                limit.reschedule(None)
                await _skim(response, max_bytes)
                return Answer(response.status_code, response.headers.get("Retry-After"))

        async with self._in_time() as limit:
            return await self._reach(self._checked(url), ask)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[asyncio.Timeout]:
        try:
            async with asyncio.timeout(self._time_limit_s) as limit:
                yield limit
        except TimeoutError:
            raise FetchError(f"it took longer than {self._time_limit_s:g} seconds") from None

    def _checked(self, url: str) -> SplitResult:
        fault = url_fault(url, self._hosts, setting=self._setting, allow_http=self._allow_private)
        parts = split_url(url)
        if fault or isinstance(parts, str):
            raise FetchError(f"{fault or parts}")
        return parts

    async def _get(self, parts: SplitResult, max_bytes: int) -> bytes | _Redirect:
        async def ask(parts: SplitResult, address: str) -> bytes | _Redirect:
            headers = {"Accept": "image/*, */*;q=0.5"}
            async with self._asking("GET", parts, address, headers=headers) as response:
                if response.has_redirect_location:
                    return _Redirect(response.headers["Location"])
                if response.status_code != httpx.codes.OK:
                    raise FetchError(f"its server answers {response.status_code}")
                return await _read(response, max_bytes)

        return await self._reach(parts, ask)

    async def _reach(self, parts: SplitResult, ask: Callable[[SplitResult, str], Awaitable[T]]) -> T:
        """Ask the first address of a host that can be connected to."""
        for address in await self._addresses(parts.hostname or "", _port_of(parts)):
            try:
                return await ask(parts, address)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise FetchError("the answer of its server is broken") from error
        raise FetchError("no safe connection to its host can be made")

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            addresses = await self._resolve(host, port)
        # A name that can't be encoded is a UnicodeError.
        except (OSError, UnicodeError):
            addresses = []
        if not addresses:
            raise FetchError("its host can't be found")
        # One private address among public ones is how a host that changes its mind begins.
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise FetchError("its host is not at a public address")
        return addresses

    @asynccontextmanager
    async def _asking(
        self,
        method: str,
        parts: SplitResult,
        address: str,
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Give the head of what one address answers; the body can be read until the block ends."""
        target = f"[{address}]" if ":" in address else address
        url = f"{parts.scheme}://{target}:{_port_of(parts)}{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}"
        connect_s = min(CONNECT_TIMEOUT_S, self._time_limit_s / 2)
        async with (
            # One for each connection: a pool knows its connections by address, and two hosts may share one.
            httpx.AsyncClient(
                verify=self._tls, trust_env=False, timeout=httpx.Timeout(None, connect=connect_s)
            ) as client,
            client.stream(
                method,
                url,
                headers={"Accept-Encoding": "identity", **headers, "Host": host_of(parts)},
                content=content,
                # The certificate is checked against the name, though the connection goes to the address.
                extensions={"sni_hostname": parts.hostname or ""},
            ) as response,
        ):
            yield response


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str


def _port_of(parts: SplitResult) -> int:
    return parts.port or DEFAULT_PORTS[parts.scheme]


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise FetchError("it redirects to what is not a URL") from None


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    # What is compressed is small on the wire and can be anything once unpacked; we asked for it plain.
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchError("its server sends it compressed")
    too_large = FetchError(f"it is larger than {max_bytes / 2**20:g} MB")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_large
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > max_bytes:
            raise too_large
    return bytes(data)


async def _skim(response: httpx.Response, max_bytes: int) -> None:
    """Take a body in, so that its server is not cut off while it writes, unless it is a long one or a slow one."""
    size = 0
    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(BODY_TIME_S):
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > max_bytes:
                    return


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet; one that wraps an IPv4 address is judged by that."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        elif parsed in _NAT64:
            parsed = IPv4Address(int(parsed) & 0xFFFF_FFFF)
        else:
            special = any(parsed in network for network in _SPECIAL_IPV6)
            return parsed.is_global and parsed in _GLOBAL_UNICAST and not special
    return parsed.is_global and not parsed.is_multicast and parsed not in _SPECIAL_IPV4
