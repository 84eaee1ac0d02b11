"""What every store promises; each test runs over a folder and over an S3 server."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from ourvidz_serving.storage import (
    InvalidKey,
    ObjectExists,
    ObjectInfo,
    ObjectNotFound,
    ObjectStore,
    StorageSettings,
)

HOUR = timedelta(hours=1)
# A key may hold whatever a user's file name may: letters of any script, and all that has a meaning in URLs and XML.
ODD_KEYS = ["ü/日本語.png", "a b+c&d=e?f#g%2F;h'i\"<j>.png", "…/%2e%2e%2f/x", "emoji/🎬.mp4", "~tilde_*(x)!.txt"]


async def test_an_object_comes_back_as_it_was_put(store: ObjectStore, bucket: str):
    written = await store.put(bucket, "user/job/0.png", b"picture", content_type="image/png")

    assert await store.get(bucket, "user/job/0.png") == b"picture"
    found = await store.stat(bucket, "user/job/0.png")
    for info in (written, found):
        assert info == ObjectInfo(bucket, "user/job/0.png", 7, "image/png", info.modified_at)
        assert abs(info.modified_at - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("if_absent", [False, True])
async def test_an_object_may_be_empty(store: ObjectStore, bucket: str, if_absent: bool):
    await store.put(bucket, "nothing.txt", b"", content_type="text/plain", if_absent=if_absent)

    assert await store.get(bucket, "nothing.txt") == b""
    assert (await store.stat(bucket, "nothing.txt")).size_bytes == 0


@pytest.mark.parametrize("content_type", ["image/png", "video/mp4", "application/json", "application/x-own; a=b"])
@pytest.mark.parametrize("key", ["file.png", "no-suffix"])
@pytest.mark.parametrize("if_absent", [False, True])
async def test_the_content_type_is_kept(store: ObjectStore, bucket: str, key: str, content_type: str, if_absent: bool):
    await store.put(bucket, key, b"x", content_type=content_type, if_absent=if_absent)

    assert (await store.stat(bucket, key)).content_type == content_type


async def test_a_second_put_replaces_bytes_and_type(store: ObjectStore, bucket: str):
    await store.put(bucket, "a.png", b"first", content_type="application/x-own")
    await store.put(bucket, "a.png", b"second one", content_type="image/png")

    assert await store.get(bucket, "a.png") == b"second one"
    found = await store.stat(bucket, "a.png")
    assert (found.size_bytes, found.content_type) == (10, "image/png")


async def test_a_reader_sees_one_whole_object_while_it_is_replaced(store: ObjectStore, bucket: str):
    size = 300_000
    await store.put(bucket, "a", b"0" * size, content_type="text/plain")

    async def write() -> None:
        for letter in (b"1", b"2", b"3", b"4"):
            await store.put(bucket, "a", letter * size, content_type="text/plain")

    writing = asyncio.create_task(write())
    while not writing.done():
        data = await store.get(bucket, "a")
        assert data == data[:1] * size
    await writing


async def test_what_was_never_put_is_not_found(store: ObjectStore, bucket: str):
    await store.put(bucket, "folder/there", b"x", content_type="text/plain")

    for where, key in [(bucket, "elsewhere"), (bucket, "folder"), (bucket, "folder/there/below"), (f"{bucket}x", "a")]:
        with pytest.raises(ObjectNotFound):
            await store.get(where, key)
        with pytest.raises(ObjectNotFound):
            await store.stat(where, key)


async def test_a_deleted_object_is_gone_and_its_neighbours_stay(store: ObjectStore, bucket: str):
    await store.put(bucket, "user/1", b"x", content_type="image/png")
    await store.put(bucket, "user/2", b"y", content_type="image/png")

    await store.delete(bucket, "user/1")

    assert await store.list(bucket) == ["user/2"]
    with pytest.raises(ObjectNotFound):
        await store.get(bucket, "user/1")


async def test_deleting_what_is_not_there_does_nothing(store: ObjectStore, bucket: str):
    await store.delete(bucket, "never/there")
    await store.put(bucket, "once", b"x", content_type="text/plain")
    await store.delete(bucket, "once")
    await store.delete(bucket, "once")

    assert await store.list(bucket) == []


async def test_a_deleted_name_is_free_again_in_any_form(store: ObjectStore, bucket: str):
    await store.put(bucket, "name/below", b"x", content_type="text/plain")
    await store.delete(bucket, "name/below")

    await store.put(bucket, "name", b"y", content_type="text/plain")

    assert await store.list(bucket) == ["name"]


async def test_keys_are_listed_sorted_by_prefix(store: ObjectStore, bucket: str):
    keys = ["a/1", "a/10", "a/2/x", "ab", "b/1", "é"]
    for key in reversed(keys):
        await store.put(bucket, key, b"x", content_type="text/plain")

    assert await store.list(bucket) == keys
    assert await store.list(bucket, "a/") == ["a/1", "a/10", "a/2/x"]
    assert await store.list(bucket, "a/1") == ["a/1", "a/10"]
    assert await store.list(bucket, "a") == ["a/1", "a/10", "a/2/x", "ab"]
    assert await store.list(bucket, "a/1/") == []
    assert await store.list(bucket, "none/below") == []


async def test_a_bucket_that_is_not_there_lists_nothing(store: ObjectStore, bucket: str):
    assert await store.list(bucket) == []
    assert await store.list(bucket, "a/b") == []


async def test_a_bucket_is_made_by_whoever_comes_first(
    settings: StorageSettings, opened: Callable[[StorageSettings], ObjectStore], bucket: str
):
    stores = [opened(settings), opened(settings)]

    await asyncio.gather(
        *(stores[i % 2].put(bucket, f"user/{i}", b"x", content_type="text/plain") for i in range(8)),
    )

    for store in stores:
        assert await store.list(bucket) == [f"user/{i}" for i in range(8)]


async def test_a_large_object_is_put_into_a_new_bucket(store: ObjectStore, bucket: str):
    data = random.Random(1).randbytes(6 * 2**20)

    await store.put(bucket, "large", data, content_type="image/png")

    assert await store.get(bucket, "large") == data


async def test_put_if_absent_writes_once(store: ObjectStore, bucket: str):
    await store.put(bucket, "manifest.json", b"{}", content_type="application/json", if_absent=True)

    with pytest.raises(ObjectExists):
        await store.put(bucket, "manifest.json", b"[]", content_type="text/plain", if_absent=True)

    assert await store.get(bucket, "manifest.json") == b"{}"
    assert (await store.stat(bucket, "manifest.json")).content_type == "application/json"


async def test_of_many_writers_one_finds_the_key_absent(
    settings: StorageSettings, opened: Callable[[StorageSettings], ObjectStore], bucket: str
):
    stores = [opened(settings), opened(settings)]
    await stores[0].put(bucket, "other", b"", content_type="text/plain")

    results = await asyncio.gather(
        *(stores[i % 2].put(bucket, "a", str(i).encode(), content_type="text/plain", if_absent=True) for i in range(8)),
        return_exceptions=True,
    )

    winners = [i for i, result in enumerate(results) if isinstance(result, ObjectInfo)]
    assert [type(result) for result in results].count(ObjectExists) == 7
    assert await stores[0].get(bucket, "a") == str(winners[0]).encode()


@pytest.mark.parametrize("size", [0, 1000, 9 * 2**20])
async def test_a_file_of_any_size_comes_back_whole(store: ObjectStore, bucket: str, tmp_path: Path, size: int):
    path = tmp_path / "clip.mp4"
    path.write_bytes(random.Random(size).randbytes(size))

    written = await store.put_file(bucket, "clip.mp4", path, content_type="video/mp4")

    assert written.size_bytes == size
    assert await store.get(bucket, "clip.mp4") == path.read_bytes()
    assert (await store.stat(bucket, "clip.mp4")).content_type == "video/mp4"


async def test_a_file_that_is_not_there_is_the_callers_mistake(store: ObjectStore, bucket: str, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        await store.put_file(bucket, "a", tmp_path / "nowhere", content_type="video/mp4")


async def test_keys_may_hold_any_letters(store: ObjectStore, bucket: str):
    for key in ODD_KEYS:
        await store.put(bucket, key, key.encode(), content_type="image/png")

    assert await store.list(bucket) == sorted(ODD_KEYS)
    for key in ODD_KEYS:
        assert await store.get(bucket, key) == key.encode()


@pytest.mark.parametrize("key", ["user/job/0.png", *ODD_KEYS])
async def test_a_signed_url_downloads_the_object(store: ObjectStore, bucket: str, browser: httpx.AsyncClient, key: str):
    await store.put(bucket, key, b"0123456789", content_type="image/png")
    url = await store.presign_get(bucket, key, expires=HOUR)

    whole = await browser.get(url)
    part = await browser.get(url, headers={"Range": "bytes=2-4"})

    assert (whole.status_code, whole.content, whole.headers["Content-Type"]) == (200, b"0123456789", "image/png")
    assert (part.status_code, part.content, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")


async def test_a_changed_signature_is_refused(store: ObjectStore, bucket: str, browser: httpx.AsyncClient):
    await store.put(bucket, "a", b"secret", content_type="text/plain")
    url = await store.presign_get(bucket, "a", expires=HOUR)
    # The last but one: the last character of base64 has bits that don't count.
    changed = url[:-2] + ("0" if url[-2] != "0" else "1") + url[-1]

    assert (await browser.get(changed)).status_code == 403


async def test_a_signed_url_is_for_its_object_alone(store: ObjectStore, bucket: str, browser: httpx.AsyncClient):
    for key in ("key-a", "key-b"):
        await store.put(bucket, key, b"secret", content_type="text/plain")
    url = await store.presign_get(bucket, "key-a", expires=HOUR)

    assert (await browser.get(url.replace("key-a", "key-b"))).status_code == 403


async def test_a_signed_url_expires(store: ObjectStore, bucket: str, browser: httpx.AsyncClient):
    await store.put(bucket, "a", b"x", content_type="text/plain")
    url = await store.presign_get(bucket, "a", expires=timedelta(seconds=1))

    # Each server has its own clock, so the end is awaited, not computed.
    while (answer := await browser.get(url)).status_code == 200:  # no event tells the end
        await asyncio.sleep(0.1)
    assert answer.status_code == 403


async def test_a_signed_url_of_nothing_is_not_found(store: ObjectStore, bucket: str, browser: httpx.AsyncClient):
    await store.put(bucket, "a", b"x", content_type="text/plain")
    url = await store.presign_get(bucket, "b", expires=HOUR)

    assert (await browser.get(url)).status_code == 404


@pytest.mark.parametrize("expires", [timedelta(), timedelta(days=-1), timedelta(days=7, seconds=1)])
async def test_a_signed_url_lives_between_a_second_and_a_week(store: ObjectStore, bucket: str, expires: timedelta):
    with pytest.raises(ValueError, match="7 days"):
        await store.presign_get(bucket, "a", expires=expires)


BAD_BUCKETS = ["", "ab", "Upper", "under_score", "../up", "a/b", "-abc", "abc-", "a..b", "a.-b", "10.0.0.1", "a" * 64]
BAD_BUCKETS += ["xn--abc", "abc-s3alias", "abc\n"]
BAD_KEYS = ["", " ", "/abs", "end/", "a//b", ".", "..", "../up", "a/../b", "a/./b", "a\\b", "a\nb", "a\0b", "\x7f"]
BAD_KEYS += ["\ud800", "x" * 1025, "é" * 513]


@pytest.mark.parametrize(
    ("bad_bucket", "key"),
    [*((bad, "key") for bad in BAD_BUCKETS), *((None, bad) for bad in BAD_KEYS)],
)
async def test_names_that_are_not_allowed_are_refused_by_every_call(
    store: ObjectStore, bucket: str, tmp_path: Path, bad_bucket: str | None, key: str
):
    where = bucket if bad_bucket is None else bad_bucket
    file = tmp_path / "file"
    file.touch()
    for call in (
        store.put(where, key, b"x", content_type="text/plain"),
        store.put(where, key, b"x", content_type="text/plain", if_absent=True),
        store.put_file(where, key, file, content_type="text/plain"),
        store.get(where, key),
        store.stat(where, key),
        store.delete(where, key),
        store.presign_get(where, key, expires=HOUR),
    ):
        with pytest.raises(InvalidKey):
            await call


@pytest.mark.parametrize("prefix", ["../", "a/../b", "/", "a//", "a\0", "\\", "./a"])
async def test_prefixes_that_no_key_can_have_are_refused(store: ObjectStore, bucket: str, prefix: str):
    with pytest.raises(InvalidKey):
        await store.list(bucket, prefix)


async def test_keys_of_the_greatest_length_are_allowed(store: ObjectStore, bucket: str):
    key = "/".join(["k" * 255] * 4)
    assert len(key) == 1023

    await store.put(bucket, key, b"x", content_type="image/png")

    assert await store.list(bucket) == [key]


async def test_a_store_in_reach_passes_the_check(store: ObjectStore):
    await store.check()
