"""Objects in a local folder, for everything on one machine."""

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, NoReturn, TypeVar

from ourvidz_serving.storage.errors import (
    AccessDenied,
    InvalidKey,
    ObjectExists,
    ObjectNotFound,
    StoreMisconfigured,
    StoreUnavailable,
)
from ourvidz_serving.storage.keys import check_bucket, check_key, check_prefix
from ourvidz_serving.storage.object_store import ObjectInfo
from ourvidz_serving.storage.signing import UrlSigner

THREADS: Final = 4
PLACING_TRIES: Final = 100
# What a file's name says of its content. Any other pair of name and type is noted in a file of its own.
CONTENT_TYPES: Final = {
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".txt": "text/plain",
    ".webp": "image/webp",
}
UNKNOWN_TYPE: Final = "application/octet-stream"

T = TypeVar("T")


class LocalStore:
    """A folder whose objects are the files `<root>/<bucket>/<key>`. Several processes may use it at once.

    A new object is written to `.staged` beside the buckets, synced, and then moved into place. A content type that
    the key's suffix does not tell is noted in `.types`. Neither name can be a bucket's. Symbolic links are not
    followed.

    Unlike S3, a folder can't hold both `a` and `a/b`, nor a segment of more than 255 bytes: writing such a key raises
    `InvalidKey`. Without a `signer` the store makes and opens no signed URLs.
    """

    def __init__(self, root: Path, signer: UrlSigner | None = None) -> None:
        self._root = root.resolve()
        self._signer = signer
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="local-store")

    async def put(
        self, bucket: str, key: str, data: bytes, *, content_type: str, if_absent: bool = False
    ) -> ObjectInfo:
        """Write an object; see `ObjectStore.put`. It is on the disk when this returns."""

        def fill(staged: BinaryIO) -> None:
            staged.write(data)

        return await self._run(lambda: self._write(bucket, key, fill, content_type, if_absent=if_absent))

    async def put_file(self, bucket: str, key: str, path: Path, *, content_type: str) -> ObjectInfo:
        """Write an object from a file; see `ObjectStore.put_file`."""

        def write() -> ObjectInfo:
            with path.open("rb") as source:
                return self._write(bucket, key, partial(shutil.copyfileobj, source), content_type, if_absent=False)

        return await self._run(write)

    async def get(self, bucket: str, key: str) -> bytes:
        """Return all of an object; see `ObjectStore.get`."""

        def read() -> bytes:
            with _reading(f"{bucket}/{key}"):
                return self._path(bucket, key).read_bytes()

        return await self._run(read)

    async def stat(self, bucket: str, key: str) -> ObjectInfo:
        """Return what is known of an object; see `ObjectStore.stat`."""
        return await self._run(lambda: self._stat(bucket, key))

    async def delete(self, bucket: str, key: str) -> None:
        """Remove an object; see `ObjectStore.delete`."""
        await self._run(lambda: self._delete(bucket, key))

    async def list(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the sorted keys that start with `prefix`; see `ObjectStore.list`."""
        return await self._run(lambda: sorted(self._walk(bucket, prefix)))

    async def presign_get(self, bucket: str, key: str, *, expires: timedelta) -> str:
        """Return a URL that the gateway serves; see `ObjectStore.presign_get`.

        Raises `StoreMisconfigured` when the store has no signer.
        """
        check_bucket(bucket)
        check_key(key)
        return self._need_signer().sign(bucket, key, expires)

    async def open_signed(self, bucket: str, key: str, token: str) -> tuple[ObjectInfo, Path]:
        """Return the object that a signed URL names, and its file.

        Raises `SignatureInvalid` or `SignatureExpired` before anything is looked up, then `ObjectNotFound`.
        """
        self._need_signer().verify(bucket, key, token)
        return await self._run(lambda: (self._stat(bucket, key), self._path(bucket, key)))

    async def remove_unfinished(self, older_than: timedelta) -> int:
        """Remove what writes left behind that were cut off longer ago than this, and return how many there were."""
        return await self._run(lambda: self._remove_unfinished(datetime.now(UTC) - older_than))

    async def check(self) -> None:
        """Write and remove an empty file; see `ObjectStore.check`."""

        def write() -> None:
            with _writing(str(self._root)), self._staged(lambda _: None):
                pass

        await self._run(write)

    async def close(self) -> None:
        """Wait for the calls in flight; see `ObjectStore.close`."""
        await asyncio.to_thread(self._threads.shutdown)

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _need_signer(self) -> UrlSigner:
        if self._signer is None:
            raise StoreMisconfigured("signed URLs need a signing secret and a public URL")
        return self._signer

    def _path(self, bucket: str, key: str) -> Path:
        check_bucket(bucket)
        check_key(key)
        path = self._root / bucket / key
        if os.path.realpath(path) != str(path):
            raise InvalidKey(f"{bucket}/{key}: symbolic links are not followed")
        return path

    def _stat(self, bucket: str, key: str) -> ObjectInfo:
        path = self._path(bucket, key)
        with _reading(f"{bucket}/{key}"):
            found = path.stat()
            if not path.is_file():
                raise ObjectNotFound(f"{bucket}/{key} is not there")
            try:
                content_type = self._type_note(bucket, key).read_text()
            except FileNotFoundError:
                content_type = _type_by_suffix(key)
        return ObjectInfo(bucket, key, found.st_size, content_type, datetime.fromtimestamp(found.st_mtime, UTC))

    def _write(
        self, bucket: str, key: str, fill: Callable[[BinaryIO], None], content_type: str, *, if_absent: bool
    ) -> ObjectInfo:
        path = self._path(bucket, key)
        with _writing(f"{bucket}/{key}"):
            if if_absent and path.is_file():
                raise ObjectExists(f"{bucket}/{key} is there")
            with self._staged(fill) as staged:
                # Before the object, so that no reader finds it without its type.
                self._note_type(bucket, key, content_type)
                self._place(staged, path, if_absent=if_absent)
        return self._stat(bucket, key)

    @contextlib.contextmanager
    def _staged(self, fill: Callable[[BinaryIO], None]) -> Iterator[Path]:
        """Yield a new file, filled and synced, that goes when it has not been moved."""
        staged = self._root / ".staged" / uuid.uuid4().hex
        staged.parent.mkdir(parents=True, exist_ok=True)
        try:
            with staged.open("xb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    def _remove_unfinished(self, before: datetime) -> int:
        removed = 0
        with contextlib.suppress(ObjectNotFound), _reading(".staged"):
            for staged in (self._root / ".staged").iterdir():
                # A file that is being moved into place right now is one that we must not meet again.
                with contextlib.suppress(FileNotFoundError):
                    if datetime.fromtimestamp(staged.stat().st_mtime, UTC) < before:
                        staged.unlink()
                        removed += 1
        return removed

    def _place(self, staged: Path, path: Path, *, if_absent: bool) -> None:
        """Move a staged file to where its readers look, in one step."""
        move = _link if if_absent else os.replace
        for attempt in range(PLACING_TRIES):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                move(staged, path)
                break
            except (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                if self._is_taken(path):
                    raise InvalidKey(
                        f"{path.name}: a folder can't hold this name beside those that it holds"
                    ) from error
                # Else a delete took the empty folder away between the two steps: once more.
                if attempt == PLACING_TRIES - 1:
                    raise
        for folder in path.parents:
            _sync(folder)
            if folder == self._root:
                break

    def _is_taken(self, path: Path) -> bool:
        """Whether the path is a folder, or leads through an object."""
        if path.is_dir():
            return True
        return any(parent.is_file() for parent in path.parents if parent.is_relative_to(self._root))

    def _type_note(self, bucket: str, key: str) -> Path:
        return self._root / ".types" / hashlib.sha256(f"{bucket}/{key}".encode()).hexdigest()

    def _note_type(self, bucket: str, key: str, content_type: str) -> None:
        note = self._type_note(bucket, key)
        if content_type == _type_by_suffix(key):
            note.unlink(missing_ok=True)
            return

        def fill(staged: BinaryIO) -> None:
            staged.write(content_type.encode())

        with self._staged(fill) as staged:
            self._place(staged, note, if_absent=False)

    def _delete(self, bucket: str, key: str) -> None:
        path = self._path(bucket, key)
        with contextlib.suppress(ObjectNotFound), _reading(f"{bucket}/{key}"):
            path.unlink()
            self._type_note(bucket, key).unlink(missing_ok=True)
            self._prune(path.parent)

    def _prune(self, folder: Path) -> None:
        """Remove the folders that a delete left empty, so that their names are free for objects again."""
        try:
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
                raise

    def _walk(self, bucket: str, prefix: str) -> Iterator[str]:
        check_bucket(bucket)
        check_prefix(prefix)
        top = self._root / bucket
        start = top / prefix.rpartition("/")[0]
        if os.path.realpath(start) != str(start):
            return
        with contextlib.suppress(ObjectNotFound), _reading(f"{bucket}/{prefix}"):
            for folder, _, names in os.walk(start, onerror=_raise):
                for file in (Path(folder, name) for name in names):
                    key = file.relative_to(top).as_posix()
                    if key.startswith(prefix) and not file.is_symlink():
                        yield key


def _type_by_suffix(key: str) -> str:
    return CONTENT_TYPES.get(Path(key).suffix, UNKNOWN_TYPE)


def _link(staged: Path, path: Path) -> None:
    """Give the staged file a second name, unless that name is taken: the one move that never overwrites."""
    try:
        path.hardlink_to(staged)
    except FileExistsError as error:
        if path.is_file():
            raise ObjectExists(f"{path.name} is there") from error
        raise


def _sync(folder: Path) -> None:
    """Put the folder's own entries on the disk; without it a power cut can lose a file that was synced itself."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> NoReturn:
    raise error


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError) or _is_name_too_long(error):
            raise ObjectNotFound(f"{what} is not there") from error
        _raise_disk_error(what, error)


@contextlib.contextmanager
def _writing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if _is_name_too_long(error):
            raise InvalidKey(f"{what}: a folder can't hold so long a name") from error
        _raise_disk_error(what, error)


def _is_name_too_long(error: OSError) -> bool:
    return error.errno == errno.ENAMETOOLONG


def _raise_disk_error(what: str, error: OSError) -> NoReturn:
    reason = f"{what}: {error.strerror or error}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        raise AccessDenied(reason) from error
    raise StoreUnavailable(reason) from error
