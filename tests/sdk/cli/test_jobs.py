from __future__ import annotations

import json
import socket

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.cli import app
from support.scripted_jobs import Failure, ScriptedJobs, event, job, step

pytestmark = pytest.mark.usefixtures("environment")

JOB = job().id


def run(*arguments: str):
    return CliRunner().invoke(app, arguments)


def lighthouse(**fields) -> jobs_pb2.Job:
    message = job(create_time=Timestamp(seconds=1_700_000_000), **fields)
    message.metadata.update({"prompt": "a lighthouse\nat dusk", "mine": 1})
    return message


def test_a_list_in_a_pipe_is_one_line_of_tabs_for_each_job(service: ScriptedJobs):
    service.answer("ListJobs", jobs_pb2.ListJobsResponse(jobs=[lighthouse(), job("QUEUED")]))
    result = run("jobs", "list", "--limit", "2")
    assert result.exit_code == 0, result.output
    first, second = (line.split("\t") for line in result.stdout.splitlines())
    assert first[:4] == [JOB, "sdxl_image_fast", "completed", "100%"]
    assert first[5] == "a lighthouse at dusk"
    assert second[2] == "queued"
    assert service.requests("ListJobs")[0].page_size == 2


def test_a_list_on_a_terminal_is_a_table_with_whole_ids(service: ScriptedJobs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    service.answer("ListJobs", jobs_pb2.ListJobsResponse(jobs=[lighthouse()]))
    result = run("jobs", "list")
    assert result.exit_code == 0, result.output
    assert "prompt" in result.stdout.splitlines()[0]
    assert JOB in result.stdout


def test_a_list_can_be_of_one_type_state_and_project(service: ScriptedJobs):
    service.answer("ListJobs", jobs_pb2.ListJobsResponse())
    result = run("jobs", "list", "--type", "video_fast", "--state", "failed", "--project", "p")
    assert (result.exit_code, result.stdout) == (0, "")
    (request,) = service.requests("ListJobs")
    assert (request.job_type, request.project_id) == ("video_fast", "p")
    assert request.state == jobs_pb2.JOB_STATE_FAILED


def test_a_list_as_json_has_the_keys_of_rest(service: ScriptedJobs):
    service.answer("ListJobs", jobs_pb2.ListJobsResponse(jobs=[lighthouse()]))
    (shown,) = json.loads(run("jobs", "list", "--json").stdout)
    assert shown["id"] == JOB
    assert shown["status"] == "completed"
    assert shown["created_at"] == "2023-11-14T22:13:20+00:00"
    assert shown["metadata"]["mine"] == 1


def test_a_job_is_shown_with_what_is_known_of_it(service: ScriptedJobs):
    asset = jobs_pb2.JobAsset(url="http://127.0.0.1:8000/objects/a?token=t", mime_type="image/png")
    message = lighthouse(assets=[asset], seed=7, warnings=["the prompt was cut"])
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=message))
    lines = dict(line.split(maxsplit=1) for line in run("jobs", "show", JOB).stdout.splitlines() if line[0] != "f")
    assert lines["id"] == JOB
    assert lines["state"] == "completed"
    assert lines["seed"] == "7"
    assert lines["warning"] == "the prompt was cut"
    assert "error" not in lines


def test_a_job_as_json_has_its_files(service: ScriptedJobs):
    asset = jobs_pb2.JobAsset(id="a", url="/objects/a", mime_type="image/png", width_px=1024, height_px=1024, seed=7)
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=lighthouse(assets=[asset])))
    shown = json.loads(run("jobs", "show", JOB, "--json").stdout)
    assert shown["assets"] == [
        {
            "id": "a",
            "job_id": JOB,
            "job_type": "sdxl_image_fast",
            "url": "/objects/a",
            "mime_type": "image/png",
            "size_bytes": 0,
            "width": 1024,
            "height": 1024,
            "seed": 7,
            "duration_seconds": None,
            "project_id": None,
            "created_at": None,
        }
    ]


def test_watching_shows_progress_to_the_end_and_saves_nothing(service: ScriptedJobs):
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=job("PROCESSING")))
    service.answer("WatchJob", step(1, 1), Failure(grpc.StatusCode.UNAVAILABLE))
    service.answer("WatchJob", step(2, 20), event(3, "COMPLETED"))
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=job(seed=7)))
    result = run("jobs", "watch", JOB)
    assert result.exit_code == 0, result.output
    assert result.stdout == "seed 7\n"
    assert result.stderr.splitlines() == [f"Job {JOB}", "rendering image 1 of 3", "completed"]


@pytest.mark.parametrize("command", ["show", "watch"])
def test_an_unknown_job_is_one_line_on_stderr(service: ScriptedJobs, command: str):
    service.answer("GetJob", Failure(grpc.StatusCode.NOT_FOUND, "There is no job x", "JOB_NOT_FOUND"))
    result = run("jobs", command, "x")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: There is no job x\n")


def test_a_missing_token_says_how_to_get_one(service: ScriptedJobs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OURVIDZ_TOKEN")
    service.answer("ListJobs", Failure(grpc.StatusCode.UNAUTHENTICATED, "A token is needed", "UNAUTHENTICATED"))
    result = run("jobs", "list")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "Error: A token is needed; set OURVIDZ_TOKEN; for the local stack: export OURVIDZ_TOKEN=$(ourvidz token NAME)"
    ]
    assert "authorization" not in service.calls[0].metadata


def test_a_refused_connection_names_the_address_and_how_to_start(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("OURVIDZ_GRPC", address)
        result = run("jobs", "list")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: No answer from {address}: Connection refused; "
        "start the local stack with `ourvidz up`, or set OURVIDZ_GRPC to the gateway's host:port\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["jobs", "list", "--limit", "0"],
        ["jobs", "list", "--state", "mood"],
        ["jobs", "show"],
        ["jobs", "nothing"],
        ["x"],
    ],
)
def test_a_wrong_command_line_exits_2(arguments: list[str]):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_running_job_is_cancelled_and_followed_to_its_end(service: ScriptedJobs):
    service.answer("CancelJob", jobs_pb2.CancelJobResponse(job=job("PROCESSING")))
    service.answer("WatchJob", step(1, 1), event(2, "CANCELLED"))
    result = run("jobs", "cancel", JOB)
    assert (result.exit_code, result.stdout) == (0, "cancelled\n")


def test_a_cancel_that_comes_too_late_says_what_became_of_the_job(service: ScriptedJobs):
    service.answer("CancelJob", jobs_pb2.CancelJobResponse(job=job("COMPLETED")))
    result = run("jobs", "cancel", JOB)
    assert (result.exit_code, result.stdout) == (0, "completed\n")
    assert service.requests("WatchJob") == []
