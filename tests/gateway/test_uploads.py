"""Reference pictures that users bring, on a real database and a real store: uploaded, listed, deleted, and counted."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from ourvidz_gateway import uploads as module
from ourvidz_gateway.database import Database
from ourvidz_gateway.decoding import Decoder
from ourvidz_gateway.errors import (
    DatabaseUnavailable,
    FileTooLarge,
    InvalidReferenceImage,
    InvalidRequest,
    ReferenceImageNotFound,
    StorageQuotaExceeded,
    StorageUnavailable,
)
from ourvidz_gateway.references import BUCKET
from ourvidz_gateway.uploads import UPLOADS, Uploads
from ourvidz_serving.pictures import MAX_FILE_BYTES
from ourvidz_serving.storage import LocalStore, ObjectStore, StoreUnavailable
from support.pictures import BAD_FILES, file_of, halves, turned_jpeg

QUOTA = 2**30


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = LocalStore(tmp_path / "objects")
    yield store
    await store.close()


@pytest.fixture
def deletions() -> list[None]:
    """One for each time that the cleaner was called."""
    return []


@pytest.fixture
def make(database: Database, store: LocalStore, deletions: list[None]):
    def made(quota_bytes: int = QUOTA) -> Uploads:
        return Uploads(database, store, Decoder(), quota_bytes=quota_bytes, on_deleted=lambda: deletions.append(None))

    return made


@pytest.fixture
def uploads(make) -> Uploads:
    return make()


async def files(store: ObjectStore) -> list[str]:
    return list(await store.list(BUCKET))


async def taken(database: Database, user: str = "alice") -> int:
    row = await database.fetchrow("SELECT reference_bytes FROM accounts WHERE user_id = $1", user)
    return row["reference_bytes"] if row else 0


class TestUpload:
    @pytest.mark.parametrize(
        ("kind", "mime_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
    )
    async def test_a_picture_is_stored_as_it_came(self, uploads, store, kind, mime_type):
        data = file_of(halves(), kind)

        image = await uploads.upload("alice", data, filename="cat.exe")

        assert (image.mime_type, image.width_px, image.height_px) == (mime_type, 64, 48)
        assert (image.size_bytes, image.filename) == (len(data), "cat.exe")
        assert (image.bucket, image.key) == (BUCKET, f"alice/{image.id}")
        assert await store.get(image.bucket, image.key) == data
        assert (await store.stat(image.bucket, image.key)).content_type == mime_type

    async def test_its_size_is_that_of_the_upright_picture(self, uploads):
        image = await uploads.upload("alice", turned_jpeg())

        assert (image.width_px, image.height_px, image.filename) == (48, 64, "")

    @pytest.mark.parametrize("file", BAD_FILES.values(), ids=BAD_FILES)
    async def test_what_is_no_picture_is_refused_and_not_stored(self, uploads, store, database, file):
        with pytest.raises(InvalidReferenceImage) as caught:
            await uploads.upload("alice", file)

        assert caught.value.violations[0].field == "file"
        assert await files(store) == []
        assert await database.fetch("SELECT 1 FROM reference_images") == []

    async def test_a_bomb_is_refused_with_its_size(self, uploads):
        with pytest.raises(InvalidReferenceImage, match="10000×10000 pixels; at most 50 megapixels"):
            await uploads.upload("alice", BAD_FILES["a decompression bomb"])

    async def test_ten_megabytes_are_taken_and_a_byte_more_is_not(self, uploads, store):
        data = file_of(halves())
        await uploads.upload("alice", data + b"\0" * (MAX_FILE_BYTES - len(data)))

        with pytest.raises(FileTooLarge, match="10 MB"):
            await uploads.upload("alice", data + b"\0" * (MAX_FILE_BYTES - len(data) + 1))
        assert len(await files(store)) == 1

    async def test_a_name_is_kept_as_far_as_it_can_be_shown(self, uploads):
        image = await uploads.upload("alice", file_of(halves()), filename="cat\0\n\x1b[1m\ud800é" + "x" * 300)

        assert image.filename == "cat[1mé" + "x" * 193

    async def test_a_store_out_of_reach_is_said_and_what_it_may_have_taken_is_left_to_the_cleaner(
        self, uploads, store, database, monkeypatch
    ):
        put = store.put

        async def lose_the_answer(*args, **options):
            await put(*args, **options)
            raise StoreUnavailable("down")

        monkeypatch.setattr(store, "put", lose_the_answer)

        with pytest.raises(StorageUnavailable):
            await uploads.upload("alice", file_of(halves()))

        row = await database.fetchrow("SELECT *, deleted_at > now() AS unconfirmed FROM reference_images")
        assert row["unconfirmed"]
        assert await files(store) == [row["key"]]
        assert await uploads.page("alice", page_size=20, page_token=None) == ([], None)
        assert await taken(database) == 0

    async def test_without_a_database_nothing_is_stored(self, uploads, store, database, monkeypatch):
        monkeypatch.setattr(database, "fetchrow", away)

        with pytest.raises(DatabaseUnavailable):
            await uploads.upload("alice", file_of(halves()))
        assert await files(store) == []

    async def test_a_database_that_leaves_amid_it_leaves_it_to_the_cleaner(self, uploads, store, database, monkeypatch):
        put = store.put

        async def put_and_leave(*args, **options):
            await put(*args, **options)
            monkeypatch.setattr(database, "fetchrow", away)

        monkeypatch.setattr(store, "put", put_and_leave)

        with pytest.raises(DatabaseUnavailable):
            await uploads.upload("alice", file_of(halves()))

        monkeypatch.undo()
        (row,) = await database.fetch("SELECT key, deleted_at > now() AS unconfirmed FROM reference_images")
        assert row["unconfirmed"]
        assert await files(store) == [row["key"]]
        assert await taken(database) == 0

    async def test_an_answer_of_the_database_that_is_lost_changes_nothing(self, uploads, database, monkeypatch):
        ask = database.fetchrow
        lost = []

        async def lose_one_answer(query, *args):
            row = await ask(query, *args)
            if query == module._CONFIRM and not lost:
                lost.append(row)
                raise DatabaseUnavailable("lost")
            return row

        monkeypatch.setattr(database, "fetchrow", lose_one_answer)
        data = file_of(halves())

        image = await uploads.upload("alice", data)

        assert lost
        assert (await uploads.page("alice", page_size=20, page_token=None))[0] == [image]
        assert await taken(database) == len(data)


async def away(*_, **__):
    raise DatabaseUnavailable("away")


class TestQuota:
    """What a user's pictures may take in all."""

    async def test_what_fits_exactly_is_taken_and_a_byte_more_is_not(self, make, store, database, deletions):
        data = file_of(halves())
        for _ in range(2):
            await make(2 * len(data)).upload("alice", data)

        with pytest.raises(StorageQuotaExceeded) as caught:
            await make(3 * len(data) - 1).upload("alice", data)

        assert caught.value.violations[0].field == "file"
        assert caught.value.suggested_action
        assert await taken(database) == 2 * len(data)
        assert len(await files(store)) == 2
        assert await make(3 * len(data)).upload("alice", data)

    async def test_another_user_has_a_quota_of_their_own(self, make):
        uploads = make(len(file_of(halves())))
        await uploads.upload("alice", file_of(halves()))

        assert await uploads.upload("bob", file_of(halves()))

    async def test_of_many_at_once_as_many_are_taken_as_fit(self, make, store, database, deletions, monkeypatch):
        """All of them pass the first look, since none is stored yet."""
        data, count = file_of(halves()), 12
        uploads = make(5 * len(data))
        put, arrived, all_there = store.put, [], asyncio.Event()

        async def put_together(*args, **options):
            arrived.append(None)
            if len(arrived) == count:
                all_there.set()
            await all_there.wait()
            return await put(*args, **options)

        monkeypatch.setattr(store, "put", put_together)

        results = await asyncio.gather(*(uploads.upload("alice", data) for _ in range(count)), return_exceptions=True)

        refused = [result for result in results if isinstance(result, StorageQuotaExceeded)]
        assert len(refused) == count - 5
        assert await taken(database) == 5 * len(data)
        assert len((await uploads.page("alice", page_size=20, page_token=None))[0]) == 5
        rows = await database.fetch("SELECT 1 FROM reference_images WHERE deleted_at <= now()")
        assert len(rows) == len(deletions) == count - 5

    async def test_deleting_makes_room_at_once(self, make, database):
        uploads = make(len(file_of(halves())))
        image = await uploads.upload("alice", file_of(halves()))

        await uploads.delete("alice", image.id)

        assert await taken(database) == 0
        assert await uploads.upload("alice", file_of(halves()))

    async def test_who_has_no_room_at_all_is_told_before_anything_is_read(self, make):
        uploads = make(len(file_of(halves())))
        await uploads.upload("alice", file_of(halves()))

        with pytest.raises(StorageQuotaExceeded):
            async with uploads.uploading("alice"):
                raise AssertionError("it would have been read")

    async def test_a_picture_that_was_never_counted_can_be_deleted(self, uploads, database):
        image = await uploads.upload("alice", file_of(halves()))
        await database.execute("UPDATE accounts SET reference_bytes = 1")

        await uploads.delete("alice", image.id)

        assert await taken(database) == 0


class TestPage:
    async def test_the_newest_come_first(self, uploads):
        images = [await uploads.upload("alice", file_of(halves()), filename=str(number)) for number in range(3)]

        assert await uploads.page("alice", page_size=3, page_token=None) == (images[::-1], None)

    async def test_pages_are_stable_while_pictures_come_and_go(self, uploads):
        images = [await uploads.upload("alice", file_of(halves())) for _ in range(5)]

        first, token = await uploads.page("alice", page_size=2, page_token=None)
        await uploads.upload("alice", file_of(halves()))
        await uploads.delete("alice", images[3].id)  # the one where the first page ended
        await uploads.delete("alice", images[1].id)
        second, end = await uploads.page("alice", page_size=2, page_token=token)

        assert first == [images[4], images[3]]
        assert second == [images[2], images[0]]
        assert end is None

    async def test_another_users_pictures_are_not_there(self, uploads):
        await uploads.upload("alice", file_of(halves()))

        assert await uploads.page("bob", page_size=20, page_token=None) == ([], None)

    async def test_a_token_of_somebody_elses_making_is_refused(self, uploads):
        with pytest.raises(InvalidRequest, match="page token"):
            await uploads.page("alice", page_size=20, page_token="bm90IGEgdG9rZW4=")


class TestDelete:
    async def test_it_is_gone_at_once_and_left_to_the_cleaner(self, uploads, database, store, deletions):
        image = await uploads.upload("alice", file_of(halves()))

        await uploads.delete("alice", image.id)

        assert await uploads.page("alice", page_size=20, page_token=None) == ([], None)
        assert len(deletions) == 1
        assert await database.fetch("SELECT 1 FROM reference_images WHERE deleted_at <= now()")
        with pytest.raises(ReferenceImageNotFound):
            await uploads.delete("alice", image.id)

    async def test_another_users_picture_looks_like_one_that_never_was(self, uploads, database, deletions):
        image = await uploads.upload("alice", file_of(halves()))

        for image_id in (image.id, uuid4()):
            with pytest.raises(ReferenceImageNotFound):
                await uploads.delete("bob", image_id)

        assert deletions == []
        assert await taken(database) == image.size_bytes

    async def test_an_upload_that_is_not_confirmed_is_not_there(self, uploads, database, monkeypatch, store):
        monkeypatch.setattr(store, "put", away)
        with pytest.raises(DatabaseUnavailable):
            await uploads.upload("alice", file_of(halves()))
        (row,) = await database.fetch("SELECT id FROM reference_images")

        with pytest.raises(ReferenceImageNotFound):
            await uploads.delete("alice", row["id"])


async def test_the_row_says_what_the_file_is(uploads, database):
    image = await uploads.upload("alice", file_of(halves()), filename="cat.png")

    row = await database.fetchrow("SELECT * FROM reference_images")

    assert (row["id"], row["user_id"], row["filename"]) == (image.id, "alice", "cat.png")
    assert row["sha256"] == hashlib.sha256(file_of(halves())).digest()
    assert (row["created_at"], row["deleted_at"]) == (image.created_at, None)


async def test_senders_who_fall_silent_lose_their_place(uploads, monkeypatch):
    async def fall_silent() -> None:
        async with uploads.uploading("alice"):
            await asyncio.Event().wait()

    monkeypatch.setattr(module, "UPLOAD_LIMIT_S", 0.0)
    silent = await asyncio.gather(*(fall_silent() for _ in range(UPLOADS)), return_exceptions=True)

    assert {type(error) for error in silent} == {InvalidRequest}
    monkeypatch.undo()
    async with uploads.uploading("alice"):
        assert await uploads.upload("alice", file_of(halves()))
