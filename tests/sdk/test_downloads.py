from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ourvidz import Client
from ourvidz.errors import DownloadFailed
from support.file_server import FileServer
from support.known_assets import asset


def test_a_file_is_downloaded_without_the_token(files: FileServer, client: Client, tmp_path: Path):
    files.files["/objects/a?token=t"] = b"picture"
    client.download(asset(f"{files.url}/objects/a?token=t", b"picture"), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"picture"
    assert files.authorizations == [None]


def test_a_relative_url_is_under_the_rest_address(
    files: FileServer, open_client: Callable[..., Client], tmp_path: Path
):
    files.files["/objects/a"] = b"picture"
    client = open_client("127.0.0.1:1", url=files.url)
    client.download(asset("/objects/a", b"picture"), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"picture"


def test_a_download_never_overwrites(files: FileServer, client: Client, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        client.download(asset(f"{files.url}/objects/a", b"picture"), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"mine"


@pytest.mark.parametrize("served_bytes", [None, b"pict"])
def test_a_download_that_fails_leaves_no_file(files: FileServer, client: Client, tmp_path: Path, served_bytes):
    if served_bytes is not None:
        files.files["/objects/a"] = served_bytes
    with pytest.raises(DownloadFailed):
        client.download(asset(f"{files.url}/objects/a", b"picture"), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_away_is_a_failed_download(client: Client, tmp_path: Path):
    with pytest.raises(DownloadFailed, match=r"^a\.png: .*onnect"):
        client.download(asset("http://127.0.0.1:1/a", b"picture"), tmp_path / "a.png")
