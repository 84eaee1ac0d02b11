"""Jobs in quarantine over gRPC, from a real gateway."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from ourvidz.api.admin.v1 import admin_pb2, admin_pb2_grpc
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobState
from support.jobs import painted_job
from support.operators import NO_IDS, OPERATOR, front_of, refused, serving


@pytest.fixture
async def idle(open_one) -> AsyncIterator[Gateway]:
    """A gateway whose renderer does not answer, so that its jobs wait."""
    async with open_one(renderers_sdxl="127.0.0.1:1") as gateway:
        yield gateway


@pytest.fixture
async def stub(tmp_path, database, idle) -> AsyncIterator[admin_pb2_grpc.AdminServiceStub]:
    front = front_of(tmp_path / "more objects", database)
    async with serving(replace(front, jobs=idle, parts=idle.parts, quarantine=idle.quarantine)) as stub:
        yield stub


async def quarantined(gateway: Gateway, database, user: str = "alice") -> UUID:
    """A job that was put in quarantine after an attempt at each of two renderers."""
    job = painted_job(user)
    await gateway.accept(job)
    await gateway._queue.withdraw(job.id, state=JobState.FAILED, message="The job failed 3 times.")
    await database.execute("UPDATE jobs SET quarantined_at = now() WHERE id = $1", job.id)
    for attempt, address in enumerate(["10.0.0.1:50061", "10.0.0.2:50061"], 1):
        await database.execute(
            "INSERT INTO attempts (job_id, attempt, stage, kind, address, slot, session_id, outcome, ended_at) "
            "VALUES ($1, $2, 'rendering', 'sdxl', $3, 0, gen_random_uuid(), 'failed', now())",
            job.id,
            attempt,
            address,
        )
    return job.id


async def listed(stub, **fields) -> admin_pb2.ListQuarantinedResponse:
    return await stub.ListQuarantined(admin_pb2.ListQuarantinedRequest(**fields), metadata=OPERATOR)


async def release(stub, job_id: object) -> admin_pb2.ReleaseQuarantinedResponse:
    request = admin_pb2.ReleaseQuarantinedRequest(job_id=str(job_id))
    return await stub.ReleaseQuarantined(request, metadata=OPERATOR)


async def test_a_job_in_quarantine_is_shown_with_where_it_ran(stub, idle, database):
    job_id = await quarantined(idle, database)

    [job] = (await listed(stub)).jobs

    assert MessageToDict(job, preserving_proto_field_name=True).keys() == {
        "job_id",
        "user_id",
        "job_type",
        "attempt_count",
        "error_message",
        "renderers",
        "quarantine_time",
    }
    assert (job.job_id, job.user_id, job.job_type) == (str(job_id), "alice", "sdxl_image_fast")
    assert (job.attempt_count, job.error_message) == (2, "The job failed 3 times.")
    assert list(job.renderers) == ["10.0.0.1:50061", "10.0.0.2:50061"]


async def test_a_released_job_is_a_new_job_and_the_same_one_again(stub, idle, database):
    job_id = await quarantined(idle, database)

    released = await release(stub, job_id)
    again = await release(stub, job_id)

    assert released == again
    assert (released.job.job_id, released.job.released_job_id) == (str(job_id), released.released_job_id)
    job = await idle.get("alice", UUID(released.released_job_id))
    assert (job.state, job.retry_of) == (JobState.QUEUED, job_id)
    assert list((await listed(stub)).jobs) == []
    assert [each.job_id for each in (await listed(stub, include_released=True)).jobs] == [str(job_id)]


async def test_lists_are_filtered_and_paged(stub, idle, database):
    of_bob = await quarantined(idle, database, "bob")
    made = [str(await quarantined(idle, database)) for _ in range(3)]

    first = await listed(stub, user_id="alice", page_size=2)
    rest = await listed(stub, user_id="alice", page_size=2, page_token=first.next_page_token)

    assert [each.job_id for each in [*first.jobs, *rest.jobs]] == made[::-1]
    assert rest.next_page_token == ""
    assert [each.job_id for each in (await listed(stub, user_id="bob")).jobs] == [str(of_bob)]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 101}, "page_size"),
        ({"page_token": "nonsense"}, "page_token"),
        ({"user_id": "a\0"}, "user_id"),
    ],
)
async def test_a_bad_filter_is_named(stub, fields, field):
    error = await refused(listed(stub, **fields))

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in error.fields] == [field]


async def test_a_job_that_is_not_in_quarantine_is_not_released(stub, idle):
    job = painted_job()
    await idle.accept(job)

    error = await refused(release(stub, job.id))

    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_NOT_QUARANTINED")


async def test_a_user_who_can_not_pay_gets_nothing_released(stub, idle, database):
    job_id = await quarantined(idle, database)
    await stub.GrantCredits(admin_pb2.GrantCreditsRequest(user_id="alice", amount=-1000), metadata=OPERATOR)

    error = await refused(release(stub, job_id))

    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS")
    assert [each.job_id for each in (await listed(stub)).jobs] == [str(job_id)]


@pytest.mark.parametrize("job_id", NO_IDS)
async def test_what_is_not_there_is_not_found(stub, job_id):
    error = await refused(release(stub, job_id))

    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
