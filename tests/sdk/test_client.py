from __future__ import annotations

import socket
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ourvidz import Asset, Client, JobStage, JobState, ReferenceType, Step
from ourvidz.api.assets.v1 import assets_pb2
from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.errors import (
    BY_REASON,
    DatabaseUnavailable,
    DownloadFailed,
    FileTooLarge,
    InvalidRequest,
    InvalidSeed,
    JobNotFound,
    ServerFailure,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from support.file_server import FileServer
from support.scripted_jobs import Failure, ScriptedJobs, event, job, served, step

JOB = job().id


def asset(url: str, data: bytes) -> Asset:
    return Asset("a", url, None, "image/png", len(data), 1024, 1024, 7, None)


def test_a_job_is_asked_for_with_all_that_was_given(service: ScriptedJobs, client: Client):
    service.answer("CreateJob", jobs_pb2.CreateJobResponse(job=job("QUEUED")))
    created = client.create_job("sdxl_image_fast", "a lighthouse", negative_prompt="fog", image_count=3, seed=0)
    assert (created.id, created.state) == (JOB, JobState.QUEUED)
    (call,) = service.calls
    assert call.metadata["authorization"] == "Bearer a.b.c"
    request = call.request
    assert (request.job_type, request.prompt, request.negative_prompt) == ("sdxl_image_fast", "a lighthouse", "fog")
    assert (request.image_count, request.seed) == (3, 0)
    assert request.request_id


def test_what_is_not_given_is_left_to_the_server(service: ScriptedJobs, client: Client):
    service.answer("CreateJob", jobs_pb2.CreateJobResponse(job=job("QUEUED")))
    client.create_job("sdxl_image_fast", "a lighthouse")
    (request,) = service.requests("CreateJob")
    assert not request.HasField("image_count")
    assert not request.HasField("seed")


def test_references_are_asked_for_by_their_urls(service: ScriptedJobs, client: Client):
    service.answer("CreateJob", jobs_pb2.CreateJobResponse(job=job("QUEUED")))
    client.create_job(
        "video_fast",
        "a walk",
        reference_image_url="https://a/r",
        reference_type=ReferenceType.CHARACTER,
        start_reference_image_url="https://a/s",
        end_reference_image_url="https://a/e",
        reference_strength=0.0,
    )
    (request,) = service.requests("CreateJob")
    assert request.reference_image_url == "https://a/r"
    assert request.reference_type == jobs_pb2.REFERENCE_TYPE_CHARACTER
    assert (request.start_reference_image_url, request.end_reference_image_url) == ("https://a/s", "https://a/e")
    assert request.HasField("reference_strength")
    assert request.reference_strength == 0.0


def test_a_job_is_cancelled_and_returned_as_it_stands(service: ScriptedJobs, client: Client):
    service.answer("CancelJob", jobs_pb2.CancelJobResponse(job=job("CANCELLED")))
    assert client.cancel_job(JOB).state is JobState.CANCELLED
    (request,) = service.requests("CancelJob")
    assert request.job_id == JOB


def test_a_file_is_uploaded_in_chunks_after_its_header(service: ScriptedJobs, client: Client, tmp_path: Path):
    picture = assets_pb2.ReferenceImage(id="r", url="/r", mime_type="image/png", size_bytes=9, width_px=8, height_px=7)
    service.answer("UploadReferenceImage", assets_pb2.UploadReferenceImageResponse(reference_image=picture))
    data = bytes(range(256)) * 2500
    (tmp_path / "fox.png").write_bytes(data)
    uploaded = client.upload_reference(tmp_path / "fox.png")
    assert (uploaded.id, uploaded.url, uploaded.width_px, uploaded.height_px) == ("r", "/r", 8, 7)
    ((header, *chunks),) = service.requests("UploadReferenceImage")
    assert (header.header.filename, header.header.size_bytes) == ("fox.png", len(data))
    assert len(chunks) > 1
    assert b"".join(chunk.chunk for chunk in chunks) == data


def test_a_file_that_is_refused_says_why(service: ScriptedJobs, client: Client, tmp_path: Path):
    service.answer(
        "UploadReferenceImage", Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large", reason="FILE_TOO_LARGE")
    )
    (tmp_path / "fox.png").write_bytes(b"fox")
    with pytest.raises(FileTooLarge, match="too large"):
        client.upload_reference(tmp_path / "fox.png")


def test_a_repeated_call_carries_the_same_request_id(service: ScriptedJobs, client: Client):
    service.answer("CreateJob", Failure(grpc.StatusCode.UNAVAILABLE))
    service.answer("CreateJob", jobs_pb2.CreateJobResponse(job=job("QUEUED")))
    client.create_job("sdxl_image_fast", "a lighthouse")
    first, second = service.requests("CreateJob")
    assert first.request_id == second.request_id


def test_two_calls_carry_different_request_ids(service: ScriptedJobs, client: Client):
    for _ in range(2):
        service.answer("CreateJob", jobs_pb2.CreateJobResponse(job=job("QUEUED")))
        client.create_job("sdxl_image_fast", "a lighthouse")
    first, second = service.requests("CreateJob")
    assert first.request_id != second.request_id


def test_a_job_is_read_with_every_field(service: ScriptedJobs, client: Client):
    message = job(
        create_time=Timestamp(seconds=1_700_000_000),
        assets=[
            jobs_pb2.JobAsset(id="a", url="/x", mime_type="image/png", size_bytes=5, width_px=8, height_px=9, seed=7)
        ],
        warnings=["the prompt was cut"],
        seed=7,
    )
    message.metadata.update({"prompt": "a lighthouse", "seed": 7, "strength": 0.5, "sizes": [1, 2]})
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=message))
    read = client.get_job(JOB)
    assert read.state is JobState.COMPLETED
    assert read.stage is None
    assert read.created_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert read.started_at is None
    assert read.queue_position is None
    assert read.error_message is None
    assert read.assets == (Asset("a", "/x", None, "image/png", 5, 8, 9, 7, None),)
    assert read.warnings == ("the prompt was cut",)
    assert repr(read.metadata["seed"]) == "7"
    assert read.metadata == {"prompt": "a lighthouse", "seed": 7, "strength": 0.5, "sizes": [1, 2]}


def test_pages_of_jobs_lead_to_the_next(service: ScriptedJobs, client: Client):
    service.answer("ListJobs", jobs_pb2.ListJobsResponse(jobs=[job()], next_page_token="next"))
    service.answer("ListJobs", jobs_pb2.ListJobsResponse())
    page = client.list_jobs(page_size=1, state=JobState.COMPLETED)
    assert [each.id for each in page.jobs] == [JOB]
    last = client.list_jobs(page_size=1, page_token=page.next_page_token)
    assert (last.jobs, last.next_page_token) == ((), None)
    first, second = service.requests("ListJobs")
    assert first.state == jobs_pb2.JOB_STATE_COMPLETED
    assert (first.page_token, second.page_token) == ("", "next")


@pytest.mark.parametrize("reason", BY_REASON)
def test_each_reason_has_its_exception(service: ScriptedJobs, client: Client, reason: str):
    service.answer("GetJob", Failure(grpc.StatusCode.FAILED_PRECONDITION, "in words", reason))
    with pytest.raises(BY_REASON[reason], match=r"^in words$") as caught:
        client.get_job(JOB)
    assert type(caught.value) is BY_REASON[reason]
    assert caught.value.reason == reason


def test_an_error_tells_the_bad_fields_and_when_to_ask_again(service: ScriptedJobs, client: Client):
    code = grpc.StatusCode.INVALID_ARGUMENT
    service.answer("CreateJob", Failure(code, "bad seed", "INVALID_SEED", 30, {"seed": "must be 0 or more"}))
    with pytest.raises(InvalidSeed) as caught:
        client.create_job("sdxl_image_fast", "a lighthouse", seed=-1)
    assert caught.value.retry_after_s == 30
    assert [(bad.field, bad.description) for bad in caught.value.fields] == [("seed", "must be 0 or more")]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.INTERNAL, ServerFailure),
    ],
)
def test_a_reason_of_a_newer_server_falls_back_to_its_code(service: ScriptedJobs, client: Client, code, kind):
    attempts = 4 if code is grpc.StatusCode.UNAVAILABLE else 1
    for _ in range(attempts):
        service.answer("GetJob", Failure(code, "in words", "NEVER_HEARD_OF"))
    with pytest.raises(kind) as caught:
        client.get_job(JOB)
    assert type(caught.value) is kind
    assert caught.value.reason == "NEVER_HEARD_OF"


def test_a_value_that_the_wire_has_no_form_for_is_an_invalid_request():
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest):
        client.create_job("sdxl_image_fast", "a lighthouse", seed=2**70)


def test_a_token_that_no_header_can_carry_is_refused_at_once():
    with pytest.raises(Unauthenticated):
        Client("127.0.0.1:1", "a.b.c\n")


def test_an_address_where_nobody_listens_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            Client(address) as client,
            pytest.raises(Unreachable, match=f"No answer from {address}: Connection refused"),
        ):
            client.get_job(JOB)


def test_watching_yields_each_event_and_ends_with_the_job(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", event(1, "QUEUED", "QUEUED"), event(0), step(2, 1), event(3, "COMPLETED"), "hold")
    events = list(client.watch(JOB))
    assert [(each.sequence, each.state, each.stage) for each in events] == [
        (1, JobState.QUEUED, JobStage.QUEUED),
        (2, JobState.PROCESSING, JobStage.RENDERING),
        (3, JobState.COMPLETED, None),
    ]
    assert events[1].step == Step(step=1, step_count=20, image_index=0, image_count=3)


def test_a_broken_stream_is_resumed_after_the_last_event(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", event(1), step(2, 1), Failure(grpc.StatusCode.UNAVAILABLE))
    service.answer("WatchJob", Failure(grpc.StatusCode.UNAVAILABLE, "starting", "DATABASE_UNAVAILABLE"))
    service.answer("WatchJob", step(2, 1), step(3, 2), event(4, "COMPLETED"))
    assert [each.sequence for each in client.watch(JOB)] == [1, 2, 3, 4]
    assert [request.resume_from for request in service.requests("WatchJob")] == [0, 2, 2]


def test_watching_goes_on_when_the_server_is_replaced():
    first, second = ScriptedJobs(), ScriptedJobs()
    first.answer("WatchJob", event(1), "hold")
    second.answer("WatchJob", event(2, "COMPLETED"))
    with ExitStack() as running:
        old = running.enter_context(ExitStack())
        old.enter_context(served(first))
        client = running.enter_context(Client(first.address))
        events = client.watch(JOB)
        assert next(events).sequence == 1
        first.held.wait()
        old.close()
        running.enter_context(served(second, port=int(first.address.rpartition(":")[2])))
        assert [each.sequence for each in events] == [2]
    assert [request.resume_from for request in second.requests("WatchJob")] == [1]


def test_a_stream_that_ends_early_is_resumed(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", event(1))
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=job("PROCESSING")))
    service.answer("WatchJob", event(2, "COMPLETED"))
    assert [each.sequence for each in client.watch(JOB)] == [1, 2]


def test_watching_a_job_whose_end_was_seen_ends(service: ScriptedJobs, client: Client):
    service.answer("WatchJob")
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=job()))
    assert list(client.watch(JOB, resume_from=9)) == []


def test_watching_gives_up_when_patience_ends(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", Failure(grpc.StatusCode.UNAVAILABLE, "in words", "DATABASE_UNAVAILABLE"))
    with pytest.raises(DatabaseUnavailable):
        list(client.watch(JOB, patience_s=0))


def test_watching_an_unknown_job_fails_at_once(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", Failure(grpc.StatusCode.NOT_FOUND, "no such job", "JOB_NOT_FOUND"))
    with pytest.raises(JobNotFound):
        list(client.watch(JOB))


def test_a_watcher_that_leaves_ends_its_stream(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", event(1), "hold")
    events = client.watch(JOB)
    next(events)
    service.held.wait()
    events.close()  # the server's stop at the end of the test would wait for a stream that goes on


def test_a_file_is_downloaded_without_the_token(files: FileServer, client: Client, tmp_path: Path):
    files.files["/objects/a?token=t"] = b"picture"
    client.download(asset(f"{files.url}/objects/a?token=t", b"picture"), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"picture"
    assert files.authorizations == [None]


def test_a_relative_url_is_under_the_rest_address(files: FileServer, tmp_path: Path):
    files.files["/objects/a"] = b"picture"
    with Client("127.0.0.1:1", url=files.url) as client:
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
    with pytest.raises(DownloadFailed, match="Connection refused"):
        client.download(asset("http://127.0.0.1:1/a", b"picture"), tmp_path / "a.png")


def test_the_environment_says_where_and_who(service: ScriptedJobs, environment: None):
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=job()))
    with Client.from_environment() as client:
        client.get_job(JOB)
    assert service.calls[0].metadata["authorization"] == "Bearer a.b.c"
