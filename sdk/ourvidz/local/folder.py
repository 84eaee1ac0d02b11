"""The data folder of a local stack: what lies where, and who may use it."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ourvidz.errors import LocalStackError

ROOTS_DATABASES = Path("/var/lib/ourvidz")


@dataclass(frozen=True, slots=True)
class DataFolder:
    """One local stack's folder. It belongs to the user that made it, and to one running stack at a time."""

    path: Path
    roots_databases: Path = ROOTS_DATABASES
    """Where databases lie when root runs the stack."""

    @classmethod
    def at(cls, path: Path | None) -> DataFolder:
        """Name the folder at `path`, or the default one; makes nothing."""
        if path is None:
            home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
            path = Path(home) / "ourvidz"
        return cls(path.expanduser().absolute())

    @property
    def secrets(self) -> Path:
        """The secrets of this stack."""
        return self.path / "secrets.json"

    @property
    def objects(self) -> Path:
        """Where outputs are stored."""
        return self.path / "objects"

    @property
    def postgres_ready(self) -> Path:
        """Written by the running database's keeper, once the database takes connections."""
        return self.path / "postgres.ready"

    @property
    def postgres_lock(self) -> Path:
        """Held by the database's keeper for as long as it lives."""
        return self.path / "postgres.lock"

    def port(self, server: str) -> Path:
        """The port that a server had last: under the same address, a gateway finds again what it began there."""
        return self.path / f"{server}.port"

    def log(self, server: str) -> Path:
        """The log of one server."""
        return self.path / "logs" / f"{server}.log"

    def make(self) -> None:
        """Make the folder, for this user alone. Raises `LocalStackError` if it can't be used."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The same folder under root and under a user would end with files that the other can't read.
            if self.path.stat().st_uid != os.geteuid():
                raise LocalStackError(f"{self.path} belongs to another user; choose your own --data-dir")
            for folder in (self.objects, self.path / "logs"):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise LocalStackError(f"{error.filename} can't be used as a data folder: {error.strerror}") from error

    def make_postgres(self) -> Path:
        """Make the database's folder if there is none, and return it.

        Root's PostgreSQL runs as another user, which must be able to reach its files: then they lie under
        `roots_databases`, and a link in the data folder says where. The name is drawn, so that a data folder that was
        deleted and made again begins with an empty database.
        """
        postgres = self.path / "postgres"
        if os.geteuid() != 0:
            postgres.mkdir(mode=0o700, exist_ok=True)
            return postgres
        if not postgres.is_symlink():
            postgres.symlink_to(self.roots_databases / secrets.token_hex(8))
        target = postgres.readlink()
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
        return target

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process. Raises `LocalStackError` if a stack runs on it already.

        The system lets go of the lock when the process ends, in whichever way.
        """
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LocalStackError(f"A stack runs on {self.path} already") from error
            yield
