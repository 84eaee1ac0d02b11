"""Objects on an S3 server, through the `minio` client."""

import asyncio
import contextlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from ourvidz_serving.storage.errors import (
    AccessDenied,
    ObjectExists,
    ObjectNotFound,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
)
from ourvidz_serving.storage.keys import check_bucket, check_key, check_prefix
from ourvidz_serving.storage.object_store import ObjectInfo, check_expiry

THREADS: Final = 8
TRIES: Final = 3
PART_BYTES: Final = 8 * 2**20
_BLOCK_BYTES: Final = 64 * 2**10
_CONDITIONAL_PUT_EXPIRY: Final = timedelta(minutes=15)
_SILENCE: Final = (TimeoutError, urllib3.exceptions.TimeoutError)

T = TypeVar("T")


class S3Store:
    """The buckets of one S3 account.

    Endpoints are URLs without a path, such as `http://minio:9000`. `public_endpoint` is where clients reach the same
    server when that is another address than ours: an S3 signature binds the host that it is sent to. `region` is never
    asked for, so that signing needs no network.

    `connect_timeout_s` is also the longest pause while sending. What fails at once is tried three times where repeating
    it is harmless. A server that falls silent is not asked again by us: a request ends after at most the sum of both
    timeouts. No more than eight calls are made at once; the next one waits for `read_timeout_s` at most.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        access_key: str,
        secret_key: str,
        region: str = "us-east-1",
        public_endpoint: str | None = None,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 10.0,
    ) -> None:
        def client(url: str) -> Minio:
            address = urlsplit(url)
            return Minio(
                address.netloc,
                access_key,
                secret_key,
                secure=address.scheme == "https",
                region=region,
                http_client=self._http,
            )

        self._endpoint = endpoint
        self._http = _BlockwisePool(
            maxsize=THREADS,
            timeout=urllib3.Timeout(connect=connect_timeout_s, read=read_timeout_s),
            # A server's Retry-After is not heeded: it could be an hour, and our caller has other things to do.
            retries=_Retry(
                total=TRIES - 1,
                backoff_factor=0.2,
                status_forcelist=(500, 502, 503, 504),
                respect_retry_after_header=False,
            ),
            blocksize=_BLOCK_BYTES,
        )
        self._minio = client(endpoint)
        self._public_minio = client(public_endpoint or endpoint)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="s3-store")
        self._places = asyncio.Semaphore(THREADS)
        self._place_timeout_s = read_timeout_s

    async def put(
        self, bucket: str, key: str, data: bytes, *, content_type: str, if_absent: bool = False
    ) -> ObjectInfo:
        """Write an object; see `ObjectStore.put`. `modified_at` is by our clock.

        A server that does not know `If-None-Match` leaves a race with `if_absent`: of two writers at the same moment,
        the second one wins.
        """
        _check(bucket, key)

        def put() -> None:
            if if_absent:
                self._put_if_absent(bucket, key, data, content_type)
            else:
                self._put(bucket, key, io.BytesIO(data), len(data), content_type)

        await self._run(f"{bucket}/{key}", lambda: self._with_bucket(bucket, put))
        return ObjectInfo(bucket, key, len(data), content_type, datetime.now(UTC))

    async def put_file(self, bucket: str, key: str, path: Path, *, content_type: str) -> ObjectInfo:
        """Write an object from a file in parts of 8 MiB; see `ObjectStore.put_file`. `modified_at` is by our clock."""
        _check(bucket, key)

        def put() -> int:
            size = path.stat().st_size
            with path.open("rb") as file:
                self._put(bucket, key, file, size, content_type)
            return size

        size = await self._run(f"{bucket}/{key}", lambda: self._with_bucket(bucket, put))
        return ObjectInfo(bucket, key, size, content_type, datetime.now(UTC))

    async def get(self, bucket: str, key: str) -> bytes:
        """Return all of an object; see `ObjectStore.get`."""
        _check(bucket, key)

        def read() -> bytes:
            with contextlib.closing(self._minio.get_object(bucket, key)) as response:
                return response.read()

        return await self._run(f"{bucket}/{key}", read)

    async def stat(self, bucket: str, key: str) -> ObjectInfo:
        """Return what is known of an object; see `ObjectStore.stat`. `modified_at` is to the second."""
        _check(bucket, key)
        found = await self._run(f"{bucket}/{key}", lambda: self._minio.stat_object(bucket, key))
        if found.size is None or found.last_modified is None:
            raise StoreUnavailable(f"{bucket}/{key}: the server's answer lacks size or time")
        return ObjectInfo(
            bucket, key, found.size, found.content_type or "application/octet-stream", found.last_modified
        )

    async def delete(self, bucket: str, key: str) -> None:
        """Remove an object; see `ObjectStore.delete`."""
        _check(bucket, key)
        with contextlib.suppress(ObjectNotFound):
            await self._run(f"{bucket}/{key}", lambda: self._minio.remove_object(bucket, key))

    async def list(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the sorted keys that start with `prefix`; see `ObjectStore.list`."""
        check_bucket(bucket)
        check_prefix(prefix)

        def read() -> list[str]:
            found = self._minio.list_objects(bucket, prefix, recursive=True)
            return sorted(item.object_name for item in found if item.object_name is not None)

        try:
            return await self._run(f"{bucket}/{prefix}", read)
        except ObjectNotFound:
            return []

    async def presign_get(self, bucket: str, key: str, *, expires: timedelta) -> str:
        """Return a URL at the public endpoint; see `ObjectStore.presign_get`."""
        _check(bucket, key)
        check_expiry(expires)
        return self._public_minio.presigned_get_object(bucket, key, expires=expires)

    async def check(self) -> None:
        """Ask for the list of our buckets; see `ObjectStore.check`. Raises `AccessDenied` for wrong credentials."""

        def ask() -> None:
            try:
                self._minio.list_buckets()
            except S3Error as error:
                # The server knows us and reserves the list for others: good enough.
                if error.code != "AccessDenied":
                    raise

        await self._run("the list of buckets", ask)

    async def close(self) -> None:
        """Wait for the calls in flight and close all connections; see `ObjectStore.close`."""
        await asyncio.to_thread(self._threads.shutdown)
        self._http.clear()

    async def _run(self, what: str, call: Callable[[], T]) -> T:
        def translated() -> T:
            with self._translated(what):
                return call()

        # While the server is silent, callers would line up behind those who wait for it, each for longer than the last.
        try:
            async with asyncio.timeout(self._place_timeout_s):
                await self._places.acquire()
        except TimeoutError:
            raise StoreUnavailable(f"{what}: {THREADS} other calls wait for {self._endpoint}") from None
        loop = asyncio.get_running_loop()

        def leave(_: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits any more
                loop.call_soon_threadsafe(self._places.release)

        running = self._threads.submit(translated)
        # A caller who leaves early leaves the call behind, which keeps its place to its end.
        running.add_done_callback(leave)
        return await asyncio.wrap_future(running)

    def _put(self, bucket: str, key: str, data: Any, size: int, content_type: str) -> None:
        # One part after the other: no threads of minio's own, and one part in memory.
        self._minio.put_object(
            bucket, key, data, size, content_type=content_type, part_size=PART_BYTES, num_parallel_uploads=1
        )

    def _put_if_absent(self, bucket: str, key: str, data: bytes, content_type: str) -> None:
        # Asked first for the sake of servers that ignore the header.
        if self._exists(bucket, key):
            raise ObjectExists(f"{bucket}/{key} is there")
        # minio has no parameter for If-None-Match; a URL that it signs takes any header.
        url = self._minio.get_presigned_url("PUT", bucket, key, expires=_CONDITIONAL_PUT_EXPIRY)
        headers = {"Content-Type": content_type, "Content-Length": str(len(data)), "If-None-Match": "*"}
        response = self._http.urlopen("PUT", url, body=data, headers=headers)
        if response.status != 200:
            raise S3Error.fromxml(response)

    def _exists(self, bucket: str, key: str) -> bool:
        try:
            self._minio.stat_object(bucket, key)
        except S3Error as error:
            if error.response.status == 404:
                return False
            raise
        return True

    def _with_bucket(self, bucket: str, put: Callable[[], T]) -> T:
        """Put; where the bucket is missing, make it and put again."""
        try:
            return put()
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise
        try:
            self._minio.make_bucket(bucket)
        except S3Error as error:
            # Another process was making it at the same moment.
            if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists", "OperationAborted"}:
                raise
        return put()

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            raise _store_error(what, error) from error
        except (urllib3.exceptions.HTTPError, MinioException, ParseError) as error:
            raise StoreUnavailable(f"{what}: no S3 answer from {self._endpoint}: {error}") from error


class _Retry(urllib3.Retry):
    """Tries again what failed at once; who has waited for a silent server has waited long enough."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        *args: Any,
        **options: Any,
    ) -> Self:
        # Silence amid a body that is sent comes as a broken connection, with its reason inside.
        refused = isinstance(error, urllib3.exceptions.NewConnectionError)
        if error and not refused and any(isinstance(each, _SILENCE) for each in (error, *error.args)):
            raise error
        return super().increment(method, url, response, error, *args, **options)


class _BlockwisePool(urllib3.PoolManager):
    """A connection pool that sends large bodies in blocks.

    urllib3 hands a body of bytes to one `sendall`, which must be done within the connect timeout: a picture on a slow
    line would never arrive. A file is sent block by block, and each block has the timeout to itself.
    """

    def urlopen(  # type: ignore[override]  # PoolManager's own signature, which is not its parent's
        self,
        method: str,
        url: str,
        redirect: bool = True,  # noqa: FBT001, FBT002
        **options: Any,
    ) -> urllib3.BaseHTTPResponse:
        body = options.get("body")
        if isinstance(body, bytes) and len(body) > _BLOCK_BYTES:
            options["body"] = io.BytesIO(body)
        return super().urlopen(method, url, redirect, **options)


def _check(bucket: str, key: str) -> None:
    check_bucket(bucket)
    check_key(key)


def _store_error(what: str, error: S3Error) -> StoreError:
    reason = f"{what}: {error.code}: {error.message}" if error.message else f"{what}: {error.code}"
    match error.code:
        case "NoSuchKey" | "NoSuchBucket":
            return ObjectNotFound(f"{what} is not there")
        case "PreconditionFailed":
            return ObjectExists(f"{what} is there")
        case "ConditionalRequestConflict" | "QuotaExceeded" | "RequestTimeout" | "SlowDown" | "TooManyRequests":
            return StoreUnavailable(reason)
        case "RequestTimeTooSkewed":
            return StoreMisconfigured(f"{reason} (our clock and the server's differ)")
    if error.response.status == 403:
        return AccessDenied(reason)
    if error.response.status >= 500:
        return StoreUnavailable(reason)
    return StoreMisconfigured(reason)
