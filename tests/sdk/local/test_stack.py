"""What a local stack remembers from one start to the next."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ourvidz.local.folder import DataFolder
from ourvidz.local.stack import _kept_port


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "data")
    folder.make()
    return folder


def test_a_server_has_the_same_port_each_time(folder: DataFolder):
    assert _kept_port(folder.port("sdxl")) == _kept_port(folder.port("sdxl"))


def test_a_port_that_is_taken_gives_way_to_another_which_is_then_kept(folder: DataFolder):
    first = _kept_port(folder.port("sdxl"))
    with socket.create_server(("127.0.0.1", first)):
        second = _kept_port(folder.port("sdxl"))

    assert second != first
    assert _kept_port(folder.port("sdxl")) == second


@pytest.mark.parametrize("damaged", ["", "x", "-1", "99999"])
def test_a_damaged_memory_is_a_new_port(folder: DataFolder, damaged: str):
    folder.port("sdxl").write_text(damaged)
    assert 0 < _kept_port(folder.port("sdxl")) < 65536
