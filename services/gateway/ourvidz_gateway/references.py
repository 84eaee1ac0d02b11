"""A job's reference pictures: which of the user's own files a URL names, and what other URLs are fetched as."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Final
from urllib.parse import unquote
from uuid import UUID

import structlog

from ourvidz_gateway.database import Database
from ourvidz_gateway.decoding import Decoder
from ourvidz_gateway.guarded_http import FetchError, GuardedClient
from ourvidz_gateway.plan import OwnFile, Reference, ReferenceRole, RenderPlan, StoredReference, user_folder
from ourvidz_gateway.storage import reaching_storage
from ourvidz_gateway.text import is_storable
from ourvidz_gateway.urls import host_of, split_url
from ourvidz_serving.pictures import MAX_FILE_BYTES, BadPicture, read_picture
from ourvidz_serving.storage import ObjectExists, ObjectNotFound, ObjectStore

log = structlog.get_logger()

BUCKET: Final = "reference-images"

MAX_SIDE_PX: Final = 1536
"""Fetched pictures are brought to this: more than a job type renders, and its PNG stays below what renderers read."""

_WORDS: Final = {
    ReferenceRole.IMAGE: "The reference image",
    ReferenceRole.START_FRAME: "The start frame",
    ReferenceRole.END_FRAME: "The end frame",
}

_FIELDS: Final = {
    "images.reference.source.stored": ReferenceRole.IMAGE,
    "clip.start_frame.stored": ReferenceRole.START_FRAME,
    "clip.end_frame.stored": ReferenceRole.END_FRAME,
}
"""Where a render request names stored pictures."""

# By the ids that stand in the key, so that the rows are found by an index; it is bucket and key that must be right.
_OWN = """
SELECT id, mime_type, size_bytes, sha256 FROM reference_images
WHERE id = ANY($4::uuid[]) AND user_id = $1 AND bucket = $2 AND key = $3 AND deleted_at IS NULL
UNION ALL
SELECT id, mime_type, size_bytes, sha256 FROM assets
WHERE job_id = ANY($4::uuid[]) AND user_id = $1 AND bucket = $2 AND key = $3 AND deleted_at IS NULL
"""


class References:
    """The reference pictures of all users. Every call that reads takes the user, and knows no other user's file.

    Raises `StorageUnavailable` and `DatabaseUnavailable` from any call.
    """

    def __init__(self, database: Database, store: ObjectStore, client: GuardedClient, decoder: Decoder) -> None:
        self._database = database
        self._store = store
        self._client = client
        self._decoder = decoder

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
            data = await self._decoder.run(_as_png, fetched)
            try:
                with reaching_storage():
                    await self._store.put(BUCKET, key, data, content_type="image/png", if_absent=True)
            except ObjectExists:
                # Another gateway, which was taken for dead, stored it meanwhile: its bytes are the ones.
                data = await self._stored(key) or data
        return StoredReference(BUCKET, key, hashlib.sha256(data).hexdigest())

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


def without_lost(plan: RenderPlan, fields: Collection[str]) -> tuple[RenderPlan, list[str]] | None:
    """Return the plan without the pictures that are no longer stored, and a warning in words for each.

    `fields` are those of a render request that its renderer refused. None if no picture's key or hash is among them.
    """
    roles = {role for field, role in _FIELDS.items() if not {f"{field}.key", f"{field}.sha256"}.isdisjoint(fields)}
    if not roles:
        return None
    references = tuple(
        replace(reference, stored=None) if reference.role in roles else reference for reference in plan.references
    )
    warnings = [
        f"{_WORDS[reference.role]} was deleted before it was used; rendered without it."
        for reference in plan.references
        if reference.role in roles
    ]
    return replace(plan, references=references), warnings


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
