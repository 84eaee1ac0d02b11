"""Reading the reference pictures of a request, from the request itself or from object storage."""

from __future__ import annotations

import asyncio
import hashlib

import numpy as np
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from ourvidz.api.render.v1 import render_pb2
from ourvidz.rpc_status import FieldViolation
from ourvidz_serving.errors import InvalidRequest
from ourvidz_serving.pictures import MAX_FILE_BYTES, BadPicture, letterbox, read_picture
from ourvidz_serving.rendering.engine import Pixels
from ourvidz_serving.rendering.errors import STORAGE_RETRY_S, StorageUnavailable, from_store
from ourvidz_serving.rendering.policy import RenderPolicy
from ourvidz_serving.rendering.work import size_of, sources_of
from ourvidz_serving.storage import InvalidKey, ObjectNotFound, ObjectStore, StoreError, StoreUnavailable

_LONGEST_PAUSE_S = 5.0


class ReferenceReader:
    """Reads what the renders of one server refer to."""

    def __init__(self, store: ObjectStore, policy: RenderPolicy) -> None:
        self._store = store
        self._policy = policy

    async def read(self, request: render_pb2.RenderRequest) -> dict[str, Pixels]:
        """Return the reference pictures, fitted to the request's width and height, by what they are for.

        Raises `InvalidRequest` with the field of a picture that is not there, is not the one that was meant or can't
        be read, and `StorageUnavailable` if storage stays out of reach.
        """
        width_px, height_px = size_of(request)
        files = {}
        patience_s = self._policy.reference_patience_s
        try:
            async with asyncio.timeout(patience_s):
                for name, (field, source) in sources_of(request).items():
                    files[name] = field, await self._file(field, source)
        except TimeoutError:
            raise StorageUnavailable(
                f"object storage was out of reach for {patience_s:g} s; the reference pictures could not be read",
                retry_after_s=STORAGE_RETRY_S,
            ) from None
        return {
            # Unpacking and scaling a picture of 50 megapixels takes a second or more.
            name: await asyncio.to_thread(_fit, field, file, width_px, height_px)
            for name, (field, file) in files.items()
        }

    async def _file(self, field: str, source: render_pb2.ImageSource) -> bytes:
        if source.HasField("inline"):
            return source.inline
        retrying = AsyncRetrying(
            wait=wait_random_exponential(multiplier=self._policy.first_retry_s, max=_LONGEST_PAUSE_S),
            retry=retry_if_exception_type(StoreUnavailable),
        )
        field, stored = f"{field}.stored", source.stored
        try:
            data: bytes = await retrying(self._load, f"{field}.key", stored.bucket, stored.key)
        except (ObjectNotFound, InvalidKey) as error:
            raise _refusal(f"{field}.key", f"there is no {stored.bucket}/{stored.key}") from error
        except StoreError as error:
            raise from_store(error) from error
        if (await asyncio.to_thread(hashlib.sha256, data)).digest() != stored.sha256:
            raise _refusal(f"{field}.sha256", f"is not that of {stored.bucket}/{stored.key}")
        return data

    async def _load(self, field: str, bucket: str, key: str) -> bytes:
        # A reference may be any output of an earlier render, of which a clip can be too large to hold.
        size_bytes = (await self._store.stat(bucket, key)).size_bytes
        if size_bytes > MAX_FILE_BYTES:
            raise _refusal(field, f"{bucket}/{key} weighs {size_bytes:,} bytes; the limit is {MAX_FILE_BYTES:,} bytes")
        return await self._store.get(bucket, key)


def _fit(field: str, file: bytes, width_px: int, height_px: int) -> Pixels:
    try:
        return np.asarray(letterbox(read_picture(file), width_px, height_px))
    except BadPicture as error:
        raise _refusal(field, f"can't be used as a picture: {error}") from error


def _refusal(field: str, wrong: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {wrong}", violations=[FieldViolation(field, wrong)])
