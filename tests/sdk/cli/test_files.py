"""Files on the command line, against the package's own double."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from ourvidz import Client
from ourvidz.cli import app
from ourvidz.testing import FakeOurVidz, pictures


@pytest.fixture(autouse=True)
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOurVidz]:
    with FakeOurVidz() as service:
        for name, value in service.environment("ann").items():
            monkeypatch.setenv(name, value)
        yield service


@pytest.fixture
def ann(service: FakeOurVidz) -> Client:
    return service.client("ann")


@pytest.fixture
def fox(tmp_path: Path) -> Path:
    (tmp_path / "fox.png").write_bytes(pictures.png(30, 20, 7))
    return tmp_path / "fox.png"


def run(*arguments: str):
    return CliRunner().invoke(app, arguments)


def test_assets_are_listed_a_line_for_each(ann: Client):
    job = ann.generate("sdxl_image_fast", "a lighthouse", project_id="p").result()
    clip = ann.generate("video_fast", "a walk").result()
    lines = [line.split("\t") for line in run("assets", "list").stdout.splitlines()]
    assert [(line[0], line[1], line[5], line[6]) for line in lines] == [
        (clip.assets[0].id, "video_fast", clip.id, ""),
        (job.assets[0].id, "sdxl_image_fast", job.id, "p"),
    ]
    assert lines[0][2:4] == ["video/mp4 480×832", "5.5 kB"]


def test_assets_can_be_of_one_type_and_project_and_for_programs(ann: Client):
    job = ann.generate("sdxl_image_fast", "a lighthouse", project_id="p", seed=7).result()
    ann.generate("video_fast", "a walk", project_id="p").result()
    ann.generate("sdxl_image_fast", "a lighthouse").result()
    (shown,) = json.loads(run("assets", "list", "--type", "sdxl_image_fast", "--project", "p", "--json").stdout)
    assert (shown["id"], shown["job_id"], shown["seed"]) == (job.assets[0].id, job.id, 7)
    assert (shown["width"], shown["height"], shown["duration_seconds"]) == (1024, 1024, None)
    assert len(run("assets", "list", "--limit", "2").stdout.splitlines()) == 2


def test_assets_are_deleted_and_what_is_not_there_is_one_line(ann: Client):
    assets = ann.generate("sdxl_image_fast", "a lighthouse", image_count=3).result().assets
    assert run("assets", "delete", assets[0].id, assets[1].id).output == ""
    assert [asset.id for asset in ann.iter_assets()] == [assets[2].id]
    result = run("assets", "delete", assets[0].id)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: There is no such asset\n")


def test_pictures_are_uploaded_listed_and_deleted(ann: Client, fox: Path):
    urls = run("references", "upload", str(fox), str(fox)).stdout.splitlines()
    assert [httpx.get(url, trust_env=False).content for url in urls] == [fox.read_bytes()] * 2
    newest, oldest = ann.iter_reference_images()
    lines = [line.split("\t") for line in run("references", "list").stdout.splitlines()]
    assert [line[0] for line in lines] == [newest.id, oldest.id]
    assert (lines[0][1], lines[0][4]) == ("image/png 30×20", "fox.png")
    (shown,) = json.loads(run("references", "list", "--limit", "1", "--json").stdout)
    assert (shown["id"], shown["url"], shown["filename"]) == (newest.id, urls[1], "fox.png")
    assert run("references", "delete", newest.id, oldest.id).exit_code == 0
    assert run("references", "list").stdout == ""


@pytest.mark.parametrize(
    ("name", "says"), [("none.png", "can't be read: No such file or directory"), ("text.png", "it is no whole PNG")]
)
def test_what_is_no_picture_is_one_line(tmp_path: Path, name: str, says: str):
    (tmp_path / "text.png").write_text("text")
    result = run("references", "upload", str(tmp_path / name))
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_prompt_becomes_a_file(tmp_path: Path):
    result = run("generate", "a walk", "--type", "video_fast", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert Path(result.stdout.splitlines()[-1]).read_bytes() == pictures.clip()
