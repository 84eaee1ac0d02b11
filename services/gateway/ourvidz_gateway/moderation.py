"""The moderation endpoint: somebody else's judgement of a text, asked for in OpenAI's way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import httpx
import structlog
import tenacity

from ourvidz_gateway.errors import ModerationUnavailable

log = structlog.get_logger()

TIME_LIMIT_S: Final = 5.0
"""For all tries together: somebody waits for the answer."""
CONNECT_TIMEOUT_S: Final = 2.0
_PASSING_STATUSES: Final = frozenset({408, 425, 429})
_UNAVAILABLE: Final = "The prompt can't be checked at the moment."


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the endpoint says of a text."""

    flagged: bool
    categories: frozenset[str]
    """Those that hold, as the endpoint names them, for example `sexual/minors`."""


class _Passes(Exception):
    """The endpoint could not answer, and may a moment later; not before `after_s`, if it says so."""

    def __init__(self, what: str, after_s: float = 0.0) -> None:
        super().__init__(what)
        self.after_s = after_s


class Moderation:
    """Asks one endpoint, over connections that are kept until `close`. Texts are never logged."""

    def __init__(self, url: str, *, key: str | None, model: str | None, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._url = url
        self._model = {"model": model} if model else {}
        self._time_limit_s = time_limit_s
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(time_limit_s, connect=min(CONNECT_TIMEOUT_S, time_limit_s)),
        )

    async def judge(self, text: str) -> Verdict:
        """Return the verdict on a text. Raises `ModerationUnavailable` when none is to be had in time."""
        trying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_Passes),
            wait=_wait,
            before_sleep=lambda state: log.warning(
                "the moderation endpoint is asked again", tries=state.attempt_number
            ),
        )
        try:
            async with asyncio.timeout(self._time_limit_s):
                return await trying(self._ask, text)
        except TimeoutError:
            log.error("the moderation endpoint does not answer", seconds=self._time_limit_s)
            raise ModerationUnavailable(_UNAVAILABLE) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, text: str) -> Verdict:
        try:
            response = await self._client.post(self._url, json={"input": text, **self._model})
        except httpx.TransportError as error:
            raise _Passes(type(error).__name__) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _gave_up(type(error).__name__) from error
        status = response.status_code
        if status in _PASSING_STATUSES or status >= 500:
            after_s = _retry_after_s(response)
            if after_s >= self._time_limit_s:
                raise ModerationUnavailable(_UNAVAILABLE, retry_after_s=after_s)
            raise _Passes(str(status), after_s)
        if status != httpx.codes.OK:
            raise _gave_up(f"status {status}")
        try:
            return _verdict(response.json())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # Whatever it was that answered, it judged nothing, so nothing passes.
            raise _gave_up("an answer of another shape") from error


def _gave_up(what: str) -> ModerationUnavailable:
    """Log what operators have to put right, and return the error; what the endpoint wrote may quote the text."""
    log.error("the moderation endpoint can't be used", got=what)
    return ModerationUnavailable(_UNAVAILABLE)


def _verdict(answer: Any) -> Verdict:
    results = answer["results"]
    categories = frozenset(
        str(name) for result in results for name, holds in (result.get("categories") or {}).items() if holds is True
    )
    flags = [result["flagged"] for result in results]
    if not flags or not all(isinstance(flag, bool) for flag in flags):
        raise ValueError("no verdict")
    return Verdict(any(flags), categories)


def _retry_after_s(response: httpx.Response) -> float:
    """Return how long the endpoint wants to be left alone; 0 where it does not say so in seconds."""
    seconds = response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isascii() and seconds.isdecimal() and len(seconds) < 6 else 0.0


_backoff = tenacity.wait_random_exponential(multiplier=0.1, max=1)


def _wait(state: tenacity.RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    asked_for = failure.after_s if isinstance(failure, _Passes) else 0.0
    return max(asked_for, _backoff(state))
