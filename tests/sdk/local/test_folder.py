from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ourvidz.errors import LocalStackError
from ourvidz.local.folder import DataFolder

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")


def test_the_default_is_the_users_data_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert DataFolder.at(None).path == tmp_path / "ourvidz"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DataFolder.at(None).path == tmp_path / ".local" / "share" / "ourvidz"


def test_a_relative_path_is_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert DataFolder.at(Path("data")).path == tmp_path / "data"


def test_a_new_folder_is_for_its_user_alone(tmp_path: Path):
    folder = DataFolder.at(tmp_path / "a" / "b")
    folder.make()
    folder.make()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_a_file_in_its_place_is_said(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(LocalStackError, match="can't be used as a data folder"):
        DataFolder.at(tmp_path / "file").make()


@as_root
def test_another_users_folder_is_refused(tmp_path: Path):
    folder = DataFolder.at(tmp_path / "data")
    folder.make()
    os.chown(folder.path, 65534, 65534)
    with pytest.raises(LocalStackError, match="belongs to another user"):
        folder.make()


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path: Path):
    folder = DataFolder.at(tmp_path)
    with folder.lock(), pytest.raises(LocalStackError, match=f"A stack runs on {tmp_path} already"), folder.lock():
        pass
    with folder.lock():
        pass


def test_a_process_that_is_killed_lets_go_of_the_folder(tmp_path: Path):
    holds = (
        "import os, sys; from pathlib import Path; from ourvidz.local.folder import DataFolder\n"
        "with DataFolder(Path(sys.argv[1])).lock(): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", holds, str(tmp_path)], check=False).returncode == -9
    with DataFolder.at(tmp_path).lock():
        pass


@as_root
def test_roots_database_lies_elsewhere_and_is_forgotten_with_the_data_folder(tmp_path: Path):
    folder = DataFolder(tmp_path / "data", tmp_path / "databases")
    folder.make()
    first = folder.make_postgres()
    assert first.parent == tmp_path / "databases"
    assert folder.make_postgres() == first
    (folder.path / "postgres").unlink()
    assert folder.make_postgres() != first
