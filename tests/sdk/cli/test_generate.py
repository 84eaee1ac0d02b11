from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ourvidz.api.assets.v1 import assets_pb2
from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.calls.jobs import event_from_message
from ourvidz.cli import app
from ourvidz.cli.progress import LiveBar, Narrator, PlainLines, progress_view
from support.file_server import FileServer
from support.scripted_jobs import Failure, ScriptedJobs, event, job, step

pytestmark = pytest.mark.usefixtures("environment")

JOB = job().id
PICTURES = [b"first picture", b"second", b"third one"]


def run(*arguments: str):
    return CliRunner().invoke(app, arguments)


def finished(files: FileServer, **fields) -> jobs_pb2.GetJobResponse:
    """A completed job of three pictures, which the file server has."""
    assets = []
    for index, data in enumerate(PICTURES):
        files.files[f"/objects/{index}"] = data
        url = f"{files.url}/objects/{index}"
        assets.append(jobs_pb2.JobAsset(url=url, mime_type="image/png", size_bytes=len(data), seed=7 + index))
    return jobs_pb2.GetJobResponse(job=job(**{"assets": assets, "seed": 7, **fields}))


def accepted() -> jobs_pb2.CreateJobResponse:
    return jobs_pb2.CreateJobResponse(job=job("QUEUED"))


def test_a_prompt_becomes_files_whose_paths_are_printed_after_the_seed(
    service: ScriptedJobs, files: FileServer, tmp_path: Path
):
    out = tmp_path / "new" / "out"
    service.answer("CreateJob", accepted())
    service.answer("WatchJob", event(1, "QUEUED", "QUEUED"), step(2, 1), event(3, "COMPLETED"))
    service.answer("GetJob", finished(files))
    result = run("generate", "a lighthouse", "--count", "3", "--seed", "7", "--negative", "fog", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["seed 7", *(str(out / f"1f3a9c2e-{index}.png") for index in range(3))]
    assert [(out / f"1f3a9c2e-{index}.png").read_bytes() for index in range(3)] == PICTURES
    (request,) = service.requests("CreateJob")
    assert (request.job_type, request.prompt, request.negative_prompt) == ("sdxl_image_fast", "a lighthouse", "fog")
    assert (request.image_count, request.seed) == (3, 7)


def test_without_a_terminal_progress_is_a_line_for_each_stage_and_image(
    service: ScriptedJobs, files: FileServer, tmp_path: Path
):
    service.answer("CreateJob", accepted())
    steps = (step(2, 1), step(3, 2), step(4, 20), step(5, 1, image=1), step(6, 2, image=1))
    service.answer("WatchJob", event(1, "QUEUED", "QUEUED"), *steps, event(7, stage="UPLOADING"), event(8, "COMPLETED"))
    service.answer("GetJob", finished(files))
    result = run("generate", "a lighthouse", "--out", str(tmp_path))
    assert result.stderr.splitlines() == [
        f"Job {JOB}",
        "queued",
        "rendering image 1 of 3",
        "rendering image 2 of 3",
        "uploading",
        "completed",
    ]


def test_a_live_bar_shows_stage_image_and_step(capsys: pytest.CaptureFixture[str]):
    console = Console(force_terminal=True, width=120)
    with progress_view(console) as view:
        assert isinstance(view, LiveBar)
        view.show(event_from_message(step(2, 7, image=1)))
    shown = capsys.readouterr().out
    assert "rendering image 2 of 3, step 7 of 20" in shown
    assert "45%" in shown


def test_a_pipe_gets_plain_lines():
    with progress_view(Console(force_terminal=False)) as view:
        assert isinstance(view, PlainLines)


def test_a_stage_that_is_done_again_is_told_and_one_that_follows_another_is_not():
    narrator = Narrator()
    told = [
        narrator.describe(event_from_message(event(number, stage=stage, attempt=attempt)))
        for number, (stage, attempt) in enumerate(
            [("ENHANCING", 1), ("QUEUED", 1), ("RENDERING", 2), ("QUEUED", 2), ("RENDERING", 3), ("UPLOADING", 3)], 1
        )
    ]
    assert told == ["enhancing", "queued", "rendering", "queued", "rendering again", "uploading again"]


def test_files_that_were_saved_before_are_left_and_named(service: ScriptedJobs, files: FileServer, tmp_path: Path):
    saved = tmp_path / "1f3a9c2e-0.png"
    saved.write_bytes(PICTURES[0])
    before = saved.stat().st_mtime_ns
    service.answer("GetJob", finished(files))
    service.answer("WatchJob", event(8, "COMPLETED"))
    service.answer("GetJob", finished(files))
    result = run("jobs", "watch", JOB, "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert saved.stat().st_mtime_ns == before
    assert str(saved) in result.stdout
    assert (tmp_path / "1f3a9c2e-2.png").read_bytes() == PICTURES[2]


def test_another_file_of_the_same_name_is_never_overwritten(service: ScriptedJobs, files: FileServer, tmp_path: Path):
    (tmp_path / "1f3a9c2e-0.png").write_bytes(b"mine")
    service.answer("CreateJob", accepted())
    service.answer("WatchJob", event(8, "COMPLETED"))
    service.answer("GetJob", finished(files))
    result = run("generate", "a lighthouse", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "is something else; choose another --out" in result.stderr
    assert (tmp_path / "1f3a9c2e-0.png").read_bytes() == b"mine"


def test_a_folder_that_can_not_be_written_is_one_line(service: ScriptedJobs, files: FileServer, tmp_path: Path):
    (tmp_path / "file").touch()
    service.answer("CreateJob", accepted())
    service.answer("WatchJob", event(8, "COMPLETED"))
    service.answer("GetJob", finished(files))
    result = run("generate", "a lighthouse", "--out", str(tmp_path / "file"))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_a_job_that_failed_says_why_and_exits_1(service: ScriptedJobs):
    service.answer("CreateJob", accepted())
    service.answer("WatchJob", event(8, "FAILED", error_message="the renderer died"))
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=job("FAILED", error_message="the renderer died")))
    result = run("generate", "a lighthouse")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: the job failed: the renderer died"


def test_a_cancelled_job_still_gives_what_was_finished(service: ScriptedJobs, files: FileServer, tmp_path: Path):
    service.answer("CreateJob", accepted())
    service.answer("WatchJob", event(8, "CANCELLED"))
    service.answer("GetJob", finished(files, state="CANCELLED", error_message="cancelled by its user"))
    result = run("generate", "a lighthouse", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert len(list(tmp_path.iterdir())) == 3


def test_warnings_are_shown(service: ScriptedJobs, files: FileServer, tmp_path: Path):
    service.answer("CreateJob", accepted())
    service.answer("WatchJob", event(8, "COMPLETED"))
    service.answer("GetJob", finished(files, warnings=["the prompt was cut after 77 tokens"]))
    result = run("generate", "a lighthouse", "--out", str(tmp_path))
    assert "Warning: the prompt was cut after 77 tokens" in result.stderr


def test_a_refused_request_is_one_line_that_names_the_field(service: ScriptedJobs):
    code = grpc.StatusCode.INVALID_ARGUMENT
    service.answer(
        "CreateJob", Failure(code, "Invalid quantity", "INVALID_QUANTITY", None, {"image_count": "1, 3 or 6"})
    )
    result = run("generate", "a lighthouse", "--count", "2")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "Error: Invalid quantity; image_count: 1, 3 or 6\n"


def test_a_full_queue_says_when_to_try_again(service: ScriptedJobs):
    for _ in range(4):
        service.answer("CreateJob", Failure(grpc.StatusCode.UNAVAILABLE, "The queue is full", "QUEUE_FULL", 30))
    result = run("generate", "a lighthouse")
    assert (result.exit_code, result.stderr) == (1, "Error: The queue is full; try again in 30 s\n")


@pytest.fixture
def ctrl_c_counts() -> Iterator[None]:
    """Let programs be started so that SIGINT ends them, also where the tests themselves run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_counts")
def test_ctrl_c_leaves_the_job_running_and_says_how_to_watch_it_again(service: ScriptedJobs, tmp_path: Path):
    service.answer("CreateJob", accepted())
    service.answer("WatchJob", step(1, 1), "hold")
    program = subprocess.Popen(
        [sys.executable, "-m", "ourvidz.cli", "generate", "a lighthouse", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    with program:
        # Its line about the step shows that it watches now.
        lines = []
        while not lines or "rendering" not in lines[-1]:
            assert program.stderr
            lines.append(program.stderr.readline())
            assert lines[-1], "".join(lines)
        program.send_signal(signal.SIGINT)
        stdout, stderr = program.communicate(timeout=30)
    assert program.returncode == 130
    assert stdout == ""
    assert f"Watch it again with: ourvidz jobs watch {JOB} --out {tmp_path}" in stderr
    assert "Traceback" not in stderr
    assert service.requests("CancelJob") == []


def test_reference_files_are_uploaded_and_urls_are_passed_on(service: ScriptedJobs, files: FileServer, tmp_path: Path):
    (tmp_path / "start.png").write_bytes(b"a picture")
    picture = assets_pb2.ReferenceImage(id="r", url="https://ours/r")
    service.answer("UploadReferenceImage", assets_pb2.UploadReferenceImageResponse(reference_image=picture))
    service.answer("CreateJob", accepted())
    service.answer("WatchJob", event(1, "COMPLETED"))
    service.answer("GetJob", finished(files, metadata={"enhanced_prompt": "A lighthouse in fog."}))
    result = run(
        "generate", "a lighthouse", "--type", "video_fast", "--start-frame", str(tmp_path / "start.png"),
        "--end-frame", "https://other/e.png", "--strength", "0.75", "--out", str(tmp_path),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "prompt A lighthouse in fog." in result.stdout.splitlines()
    (request,) = service.requests("CreateJob")
    assert request.start_reference_image_url == "https://ours/r"
    assert request.end_reference_image_url == "https://other/e.png"
    assert request.reference_strength == 0.75


def test_a_reference_file_that_is_not_there_is_named_and_nothing_is_asked_for(service: ScriptedJobs, tmp_path: Path):
    result = run("generate", "a lighthouse", "--reference", str(tmp_path / "none.png"))
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path / 'none.png'} can't be read: No such file or directory\n"
    assert service.calls == []
