"""The object storage as the gateway's users meet it: what goes wrong there, in our own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from ourvidz_gateway.errors import StorageUnavailable
from ourvidz_serving.storage import AccessDenied, StoreMisconfigured, StoreUnavailable

log = structlog.get_logger()


@contextmanager
def reaching_storage() -> Iterator[None]:
    """Turn every way of not reaching the store into `StorageUnavailable`."""
    try:
        yield
    except StoreUnavailable as error:
        raise StorageUnavailable("The object storage is out of reach.") from error
    except (AccessDenied, StoreMisconfigured) as error:
        log.error("the object storage refuses us", error=str(error))
        raise StorageUnavailable("The object storage is out of reach.") from error
