"""Putting files into object storage, again and again while it is out of reach."""

from __future__ import annotations

import asyncio

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from ourvidz_serving.rendering.metrics import RenderMetrics
from ourvidz_serving.rendering.policy import RenderPolicy
from ourvidz_serving.storage import ObjectStore, StoreUnavailable

_log = structlog.get_logger(__name__)

_LONGEST_PAUSE_S = 15.0


class Uploads:
    """The uploads of all renders of one server."""

    def __init__(self, store: ObjectStore, policy: RenderPolicy, metrics: RenderMetrics) -> None:
        self.store = store
        self.policy = policy
        self.places = asyncio.Semaphore(policy.unfinished_outputs)
        """One for each output that may wait to be stored, whichever render it belongs to."""
        self._metrics = metrics

    async def put(self, bucket: str, key: str, data: bytes, *, content_type: str, if_absent: bool = False) -> None:
        """Write an object, trying again for as long as storage is out of reach: the caller sets the limit.

        Raises what the store raises, save `StoreUnavailable`.
        """
        retrying = AsyncRetrying(
            # Random pauses up to a bound that doubles: the uploads of many renderers don't come back all at once.
            wait=wait_random_exponential(multiplier=self.policy.first_retry_s, max=_LONGEST_PAUSE_S),
            retry=retry_if_exception_type(StoreUnavailable),
            before_sleep=self._report_retry,
        )
        await retrying(self.store.put, bucket, key, data, content_type=content_type, if_absent=if_absent)

    def _report_retry(self, attempt: RetryCallState) -> None:
        self._metrics.upload_retried()
        error = attempt.outcome.exception() if attempt.outcome else None
        _log.warning("upload failed, will be tried again", attempt=attempt.attempt_number, error=str(error))
