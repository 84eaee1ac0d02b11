"""What is a folder's own: links, names, and what it leaves behind."""

import asyncio
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from ourvidz_serving.storage import (
    InvalidKey,
    LocalStore,
    ObjectExists,
    ObjectStore,
    SignatureInvalid,
    StorageSettings,
    StoreMisconfigured,
    StoreUnavailable,
    UrlSigner,
)

SECRET = "s" * 32


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def folder(local_settings: StorageSettings, opened: Callable[[StorageSettings], ObjectStore]) -> LocalStore:
    store = opened(local_settings)
    assert isinstance(store, LocalStore)
    return store


def files_under(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file()]


async def test_objects_are_plain_files_under_their_keys(folder: LocalStore, root: Path):
    await folder.put("pictures", "user/0.png", b"picture", content_type="image/png")

    assert (root / "pictures/user/0.png").read_bytes() == b"picture"


async def test_a_link_to_a_file_elsewhere_is_neither_read_nor_written_nor_listed(
    folder: LocalStore, root: Path, tmp_path: Path
):
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    (root / "pictures").mkdir(parents=True)
    (root / "pictures/link").symlink_to(outside)

    for call in (
        folder.get("pictures", "link"),
        folder.stat("pictures", "link"),
        folder.put("pictures", "link", b"x", content_type="text/plain"),
        folder.delete("pictures", "link"),
    ):
        with pytest.raises(InvalidKey):
            await call
    assert await folder.list("pictures") == []
    assert outside.read_bytes() == b"secret"


async def test_a_linked_folder_is_neither_read_nor_written_nor_listed(folder: LocalStore, root: Path, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    (root / "pictures").mkdir(parents=True)
    (root / "pictures/link").symlink_to(outside)

    with pytest.raises(InvalidKey):
        await folder.get("pictures", "link/file")
    with pytest.raises(InvalidKey):
        await folder.put("pictures", "link/new", b"x", content_type="text/plain")
    assert await folder.list("pictures") == []
    assert await folder.list("pictures", "link/") == []
    assert [path.name for path in outside.iterdir()] == ["file"]


async def test_the_folder_itself_may_be_reached_by_a_link(root: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(root)
    store = LocalStore(tmp_path / "link")

    await store.put("pictures", "a", b"x", content_type="text/plain")

    assert await store.get("pictures", "a") == b"x"
    await store.close()


@pytest.mark.parametrize("if_absent", [False, True])
@pytest.mark.parametrize("key", ["a", "a/b/c", "a/b/c/d", "k" * 256])
async def test_a_key_that_a_folder_cannot_hold_is_refused_and_leaves_nothing(
    folder: LocalStore, root: Path, key: str, if_absent: bool
):
    await folder.put("pictures", "a/b", b"x", content_type="image/png")

    with pytest.raises(InvalidKey, match="can't hold"):
        await folder.put("pictures", key, b"y", content_type="image/png", if_absent=if_absent)

    assert await folder.list("pictures") == ["a/b"]
    assert list((root / ".staged").iterdir()) == []


async def test_what_a_write_left_behind_long_ago_is_removed_and_nothing_else(folder: LocalStore, root: Path):
    assert await folder.remove_unfinished(timedelta()) == 0
    await folder.put("pictures", "a", b"x", content_type="image/png")
    cut_off, fresh = (root / ".staged" / name for name in ("cut-off", "fresh"))
    for file in (cut_off, fresh):
        file.write_bytes(b"half")
    long_ago = cut_off.stat().st_mtime - 3601
    os.utime(cut_off, (long_ago, long_ago))
    os.utime(root / "pictures" / "a", (long_ago, long_ago))

    assert await folder.remove_unfinished(timedelta(hours=1)) == 1

    assert list((root / ".staged").iterdir()) == [fresh]
    assert await folder.get("pictures", "a") == b"x"


async def test_nothing_but_objects_and_odd_types_is_left(folder: LocalStore, root: Path):
    await folder.put("pictures", "a.png", b"x", content_type="application/x-own")
    await folder.put("pictures", "a.png", b"x", content_type="image/png")
    await folder.put("pictures", "b", b"x", content_type="image/png")
    await folder.delete("pictures", "b")
    with pytest.raises(ObjectExists):
        await folder.put("pictures", "a.png", b"y", content_type="image/png", if_absent=True)

    assert files_under(root) == ["a.png"]


async def test_puts_and_deletes_of_neighbours_do_not_disturb_each_other(folder: LocalStore):
    async def turn_over(name: str) -> None:
        for _ in range(50):
            await folder.put("pictures", f"user/job/{name}", b"x", content_type="image/png")
            await folder.delete("pictures", f"user/job/{name}")

    await asyncio.gather(*(turn_over(name) for name in "abcd"))

    assert await folder.list("pictures") == []


@pytest.mark.parametrize("if_absent", [False, True])
async def test_a_put_survives_a_delete_that_takes_its_folder_away(
    folder: LocalStore, monkeypatch: pytest.MonkeyPatch, if_absent: bool
):
    make, taken = Path.mkdir, []

    def make_and_lose(path: Path, *arguments: Any, **options: Any) -> None:
        make(path, *arguments, **options)
        if path.name == "job" and not taken:
            taken.append(path)
            path.rmdir()

    monkeypatch.setattr(Path, "mkdir", make_and_lose)

    await folder.put("pictures", "user/job/a.png", b"x", content_type="image/png", if_absent=if_absent)

    assert len(taken) == 1
    assert await folder.get("pictures", "user/job/a.png") == b"x"


async def test_a_folder_that_cannot_be_made_fails_the_check(tmp_path: Path):
    (tmp_path / "file").touch()
    store = LocalStore(tmp_path / "file/objects")

    with pytest.raises(StoreUnavailable):
        await store.check()
    with pytest.raises(StoreUnavailable):
        await store.put("pictures", "a", b"x", content_type="text/plain")
    await store.close()


async def test_a_store_without_a_secret_signs_nothing(root: Path):
    store = LocalStore(root)

    with pytest.raises(StoreMisconfigured):
        await store.presign_get("pictures", "a", expires=timedelta(hours=1))
    with pytest.raises(StoreMisconfigured):
        await store.open_signed("pictures", "a", "token")
    await store.close()


def test_a_short_secret_is_refused():
    with pytest.raises(StoreMisconfigured, match="32 bytes"):
        UrlSigner("s" * 31, "http://127.0.0.1:8000")


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "pictures/a", "exp": 4_000_000_000},
        {"sub": "pictures/a", "exp": 4_000_000_000, "aud": "authenticated"},
        {"sub": "pictures/a", "aud": "object"},
        {"exp": 4_000_000_000, "aud": "object"},
    ],
    ids=["no audience", "another audience", "no expiry", "no object"],
)
def test_a_token_of_our_secret_for_another_use_opens_nothing(claims: dict[str, object]):
    signer = UrlSigner(SECRET, "http://127.0.0.1:8000")

    with pytest.raises(SignatureInvalid):
        signer.verify("pictures", "a", jwt.encode(claims, SECRET, algorithm="HS256"))


def test_an_unsigned_token_opens_nothing():
    token = jwt.encode({"sub": "pictures/a", "exp": 4_000_000_000, "aud": "object"}, None, algorithm="none")

    with pytest.raises(SignatureInvalid):
        UrlSigner(SECRET, "http://127.0.0.1:8000").verify("pictures", "a", token)
