"""What every object store does."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

# What S3 allows; a URL that works on one store works on the other.
SHORTEST_EXPIRY: Final = timedelta(seconds=1)
LONGEST_EXPIRY: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object without reading it. `modified_at` is in UTC, to the second or finer."""

    bucket: str
    key: str
    size_bytes: int
    content_type: str
    modified_at: datetime


class ObjectStore(Protocol):
    """Buckets of objects. Safe to use from many tasks, and many processes may use one store at once.

    Every call may raise `InvalidKey`, `AccessDenied`, `StoreMisconfigured` and `StoreUnavailable`, and returns or
    raises within a bounded time. A call that is cancelled once it has begun still runs to its end, unseen.
    """

    async def put(
        self, bucket: str, key: str, data: bytes, *, content_type: str, if_absent: bool = False
    ) -> ObjectInfo:
        """Write an object; a reader sees all of it or none. The bucket is made on first use.

        With `if_absent`, raises `ObjectExists` when the key is there. After `StoreUnavailable` the object may have
        been written all the same, so that a second try meets its own first one.
        """
        ...

    async def put_file(self, bucket: str, key: str, path: Path, *, content_type: str) -> ObjectInfo:
        """Write an object from a file, in parts when it is large, never holding all of it in memory.

        Raises `OSError` when `path` can't be read.
        """
        ...

    async def get(self, bucket: str, key: str) -> bytes:
        """Return all of an object. Raises `ObjectNotFound`."""
        ...

    async def stat(self, bucket: str, key: str) -> ObjectInfo:
        """Return what is known of an object. Raises `ObjectNotFound`."""
        ...

    async def delete(self, bucket: str, key: str) -> None:
        """Remove an object; nothing happens when it is not there."""
        ...

    async def list(self, bucket: str, prefix: str = "") -> Sequence[str]:
        """Return the keys that start with `prefix`, sorted; none for a bucket that is not there."""
        ...

    async def presign_get(self, bucket: str, key: str, *, expires: timedelta) -> str:
        """Return a URL that whoever holds it can GET until it expires, in 1 second to 7 days.

        Asks no server: a URL of an object that is not there answers 404. Raises `ValueError` for another span.
        """
        ...

    async def check(self) -> None:
        """Return when the store answers and knows us. Raises `StoreUnavailable` when it is out of reach."""
        ...

    async def close(self) -> None:
        """Wait for the calls in flight and let go of threads and connections; the store is of no use afterwards."""
        ...


def check_expiry(expires: timedelta) -> None:
    """Raise `ValueError` unless a signed URL may live this long."""
    if not SHORTEST_EXPIRY <= expires <= LONGEST_EXPIRY:
        raise ValueError(f"a signed URL lives for 1 second to 7 days, not {expires}")
