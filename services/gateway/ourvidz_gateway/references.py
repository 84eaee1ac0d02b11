"""Reference pictures: what users upload, which of their own files a URL names, and what a job's URLs are fetched as."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar
from urllib.parse import unquote
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

import structlog

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import (
    DatabaseUnavailable,
    FileTooLarge,
    InvalidReferenceImage,
    InvalidRequest,
    StorageUnavailable,
)
from ourvidz_gateway.guarded_http import FetchError, GuardedClient
from ourvidz_gateway.plan import OwnFile, Reference, ReferenceRole, RenderPlan, StoredReference, user_folder
from ourvidz_gateway.text import is_plain, is_storable
from ourvidz_gateway.urls import host_of, split_url
from ourvidz_serving.pictures import MAX_FILE_BYTES, MIME_TYPES, BadPicture, read_picture
from ourvidz_serving.storage import (
    AccessDenied,
    ObjectExists,
    ObjectNotFound,
    ObjectStore,
    StoreMisconfigured,
    StoreUnavailable,
)

log = structlog.get_logger()

T = TypeVar("T")

BUCKET: Final = "reference-images"

FIELD: Final = "file"
"""The upload's own field, which errors name."""

MAX_FILENAME_CHARACTERS: Final = 200

MAX_SIDE_PX: Final = 1536
"""Fetched pictures are brought to this: more than a job type renders, and its PNG stays below what renderers read."""

DECODERS: Final = 2
"""Pictures that are decoded at once: one of 50 megapixels takes up to 1 GB while it is turned and flattened."""

UPLOADS: Final = 4
"""Files of one user that are in memory at once; a user who sends more is read from more slowly."""

UPLOAD_LIMIT_S: Final = 300.0
"""For all of an upload: a sender who falls silent does not hold their place for ever."""

_WORDS: Final = {
    ReferenceRole.IMAGE: "The reference image",
    ReferenceRole.START_FRAME: "The start frame",
    ReferenceRole.END_FRAME: "The end frame",
}

_INSERT = """
INSERT INTO reference_images (id, user_id, bucket, key, filename, mime_type, size_bytes, sha256, width_px, height_px)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
RETURNING created_at
"""

# By the ids that stand in the key, so that the rows are found by an index; it is bucket and key that must be right.
_OWN = """
SELECT id, mime_type, size_bytes, sha256 FROM reference_images
WHERE id = ANY($4::uuid[]) AND user_id = $1 AND bucket = $2 AND key = $3 AND deleted_at IS NULL
UNION ALL
SELECT id, mime_type, size_bytes, sha256 FROM assets
WHERE job_id = ANY($4::uuid[]) AND user_id = $1 AND bucket = $2 AND key = $3 AND deleted_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """A picture that a user uploaded."""

    id: UUID
    user_id: str
    bucket: str
    key: str
    filename: str
    """The name that the file had; empty if none was given."""
    mime_type: str
    size_bytes: int
    width_px: int
    height_px: int
    created_at: datetime


class References:
    """The reference pictures of all users. Every call that reads takes the user, and knows no other user's file.

    Raises `StorageUnavailable` and `DatabaseUnavailable` from any call.
    """

    def __init__(self, database: Database, store: ObjectStore, client: GuardedClient) -> None:
        self._database = database
        self._store = store
        self._client = client
        # Threads of their own and not places for waiting tasks: a task that is cancelled leaves its thread decoding.
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        self._uploads: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def uploading(self, user_id: str) -> AsyncIterator[None]:
        """Wait until a user's next file may be read; the block is all of its upload.

        Raises `InvalidRequest` when that takes too long.
        """
        places = self._uploads.setdefault(user_id, asyncio.Semaphore(UPLOADS))
        async with places:
            try:
                async with asyncio.timeout(UPLOAD_LIMIT_S):
                    yield
            except TimeoutError:
                raise InvalidRequest(f"The upload took longer than {UPLOAD_LIMIT_S / 60:g} minutes.") from None

    async def upload(self, user_id: str, data: bytes, *, filename: str = "") -> ReferenceImage:
        """Check a file and store it as it came.

        Raises `FileTooLarge`, and `InvalidReferenceImage` for what is no whole PNG, JPEG or WebP or has too many
        pixels; then nothing was stored.
        """
        check_size(len(data))
        try:
            mime_type, width_px, height_px = await self._decoded(_described, data)
        except BadPicture as error:
            raise InvalidReferenceImage(
                f"The file can't be used as a reference image: {error}.", field=FIELD
            ) from error
        image_id = uuid4()
        key = f"{user_folder(user_id)}/{image_id}"
        filename = "".join(character for character in filename if is_plain(character))[:MAX_FILENAME_CHARACTERS]
        with reaching_storage():
            await self._store.put(BUCKET, key, data, content_type=mime_type)
        try:
            row = await self._database.fetchrow(
                _INSERT,
                image_id,
                user_id,
                BUCKET,
                key,
                filename,
                mime_type,
                len(data),
                hashlib.sha256(data).digest(),
                width_px,
                height_px,
            )
        except DatabaseUnavailable:
            with reaching_storage():
                await self._store.delete(BUCKET, key)
            raise
        assert row is not None  # noqa: S101  # the statement returns what it inserts
        return ReferenceImage(
            image_id, user_id, BUCKET, key, filename, mime_type, len(data), width_px, height_px, row["created_at"]
        )

    async def find_own(
        self, user_id: str, urls: Collection[str], buckets: Collection[str]
    ) -> dict[str, OwnFile | None]:
        """Return, of `urls`, those that are ours: signed by our store, whether or not they have expired.

        Each comes with the file of this user that it names in one of `buckets` or among the uploads, or None if there
        is no such file.
        """
        prefixes = [(bucket, *await self._prefix(bucket)) for bucket in {BUCKET, *buckets}] if urls else []
        found: dict[str, OwnFile | None] = {}
        for url in urls:
            parts = split_url(url)
            if isinstance(parts, str) or all((parts.scheme, host_of(parts)) != origin for _, origin, _ in prefixes):
                continue
            found[url] = None
            for bucket, origin, path in prefixes:
                if (parts.scheme, host_of(parts)) == origin and parts.path.startswith(path):
                    found[url] = await self._find(user_id, bucket, unquote(parts.path.removeprefix(path)))
        return found

    async def settle(self, plan: RenderPlan, *, user_id: str, job_id: UUID) -> tuple[RenderPlan, list[str]]:
        """Return the plan with all its references stored, and a warning in words for each that can't be had.

        A picture is downloaded once for a job: done again, this returns what was stored the first time.
        """
        references, warnings = [], []
        for reference in plan.references:
            settled = reference
            if reference.stored is None:
                key = f"{user_folder(user_id)}/{job_id}/{reference.role}.png"
                try:
                    settled = replace(reference, stored=await self._fetch(reference, key))
                except (FetchError, BadPicture) as error:
                    log.info("a reference could not be fetched", role=reference.role, error=str(error))
                    warnings.append(f"{_WORDS[reference.role]} could not be fetched: {error}; rendered without it.")
            references.append(settled)
        return replace(plan, references=tuple(references)), warnings

    async def _fetch(self, reference: Reference, key: str) -> StoredReference:
        data = await self._stored(key)
        if data is None:
            fetched = await self._client.fetch(reference.url, max_bytes=MAX_FILE_BYTES)
            data = await self._decoded(_as_png, fetched)
            try:
                with reaching_storage():
                    await self._store.put(BUCKET, key, data, content_type="image/png", if_absent=True)
            except ObjectExists:
                # Another gateway, which was taken for dead, stored it meanwhile: its bytes are the ones.
                data = await self._stored(key) or data
        return StoredReference(BUCKET, key, hashlib.sha256(data).hexdigest())

    async def _decoded(self, decode: Callable[[bytes], T], data: bytes) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, decode, data)

    async def _stored(self, key: str) -> bytes | None:
        try:
            with reaching_storage():
                return await self._store.get(BUCKET, key)
        except ObjectNotFound:
            return None

    async def _prefix(self, bucket: str) -> tuple[tuple[str, str], str]:
        """Return the origin of a bucket's signed URLs, and how their paths begin."""
        # Signing asks no server. That way both kinds of store, and S3's two ways to name a bucket, are the same here.
        parts = split_url(await self._store.presign_get(bucket, "x", expires=timedelta(days=1)))
        assert not isinstance(parts, str)  # noqa: S101  # it is the store's own
        return (parts.scheme, host_of(parts)), parts.path.removesuffix("x")

    async def _find(self, user_id: str, bucket: str, key: str) -> OwnFile | None:
        ids = [UUID(segment) for segment in key.split("/") if _is_uuid(segment)]
        if not ids or not is_storable(key):
            return None
        row = await self._database.fetchrow(_OWN, user_id, bucket, key, ids)
        if row is None:
            return None
        stored = StoredReference(bucket, key, row["sha256"].hex())
        return OwnFile(str(row["id"]), row["mime_type"], row["size_bytes"], stored)


def check_size(size_bytes: int) -> None:
    """Raise `FileTooLarge` for a file over the limit."""
    if size_bytes > MAX_FILE_BYTES:
        raise FileTooLarge(f"The file is over {MAX_FILE_BYTES / 2**20:g} MB.", field=FIELD)


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


def _described(data: bytes) -> tuple[str, int, int]:
    picture = read_picture(data)
    return MIME_TYPES[picture.format or ""], picture.width, picture.height


def _as_png(data: bytes) -> bytes:
    picture = read_picture(data)
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    output = io.BytesIO()
    # The colour profile is left behind: it may be as large as its maker wants, and no model looks at it.
    picture.save(output, "PNG", compress_level=1, icc_profile=None)
    return output.getvalue()


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
