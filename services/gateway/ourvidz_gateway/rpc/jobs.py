"""`ourvidz.api.jobs.v1.JobService`. Errors are raised as they are; the server's interceptor turns them into statuses."""

# ruff: noqa: N802  # the contract names the methods

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from grpc.aio import ServicerContext

from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from ourvidz_gateway.errors import InvalidRequest
from ourvidz_gateway.front import Front, parse_job_id, parse_sequence
from ourvidz_gateway.jobs import Job, JobEvent, JobFilter
from ourvidz_gateway.pages import DEFAULT_PAGE_SIZE
from ourvidz_gateway.previews import Preview
from ourvidz_gateway.rpc.caller import caller_of
from ourvidz_gateway.rpc.messages import (
    STATES,
    draft_of,
    event_message,
    job_message,
    name_fields,
    preview_message,
    queue_message,
    standing_message,
    state_of,
)
from ourvidz_gateway.watches import HEARTBEAT_S, Heartbeat

SERVICE = "ourvidz.api.jobs.v1.JobService"


class JobServicer(jobs_pb2_grpc.JobServiceServicer):
    """Users' jobs over gRPC. Lives as long as the server; holds nothing of its own."""

    def __init__(self, front: Front, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._front = front
        self._heartbeat_s = heartbeat_s

    async def CreateJob(
        self, request: jobs_pb2.CreateJobRequest, context: ServicerContext[Any, Any]
    ) -> jobs_pb2.CreateJobResponse:
        """Accept a job."""
        caller = await caller_of(self._front, context)
        try:
            accepted, job_type = await self._front.create_job(draft_of(request), caller.user_id)
        except InvalidRequest as error:
            name_fields(error)
            raise
        return jobs_pb2.CreateJobResponse(
            job=await self._message(accepted.job),
            queue_length=accepted.queue_length,
            model_variant=job_type.model_variant,
        )

    async def GetJob(
        self, request: jobs_pb2.GetJobRequest, context: ServicerContext[Any, Any]
    ) -> jobs_pb2.GetJobResponse:
        """Return one job."""
        caller = await caller_of(self._front, context)
        job = await self._front.jobs.get(caller.user_id, parse_job_id(request.job_id))
        return jobs_pb2.GetJobResponse(job=await self._message(job))

    async def ListJobs(
        self, request: jobs_pb2.ListJobsRequest, context: ServicerContext[Any, Any]
    ) -> jobs_pb2.ListJobsResponse:
        """Return a page of the caller's jobs, newest first."""
        caller = await caller_of(self._front, context)
        where = JobFilter(
            job_type=request.job_type or None,
            state=state_of(request.state),
            project_id=request.project_id or None,
            video_id=request.video_id or None,
            image_id=request.image_id or None,
        )
        jobs, next_page_token = await self._front.list_jobs(
            caller.user_id,
            where,
            page_size=request.page_size or DEFAULT_PAGE_SIZE,
            page_token=request.page_token or None,
        )
        return jobs_pb2.ListJobsResponse(
            jobs=[await self._message(job) for job in jobs], next_page_token=next_page_token or ""
        )

    async def CancelJob(
        self, request: jobs_pb2.CancelJobRequest, context: ServicerContext[Any, Any]
    ) -> jobs_pb2.CancelJobResponse:
        """Cancel a job and tell what was found."""
        caller = await caller_of(self._front, context)
        found, job = await self._front.jobs.cancel(caller.user_id, parse_job_id(request.job_id))
        return jobs_pb2.CancelJobResponse(job=await self._message(job), found_state=STATES[found])

    async def WatchJob(
        self, request: jobs_pb2.WatchJobRequest, context: ServicerContext[Any, Any]
    ) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        """Stream a job's events until it has ended, with previews if asked for, and heartbeats while it is quiet."""
        caller = await caller_of(self._front, context)
        after = parse_sequence(request.resume_from, field="resume_from")
        job = await self._front.jobs.get(caller.user_id, parse_job_id(request.job_id))
        last: Job | JobEvent = job
        async with self._front.watch_job(
            job, after=after, previews=request.previews, heartbeat_s=self._heartbeat_s
        ) as updates:
            async for update in updates:
                match update:
                    case JobEvent():
                        last = update
                        yield event_message(update)
                    case Preview():
                        yield preview_message(update, last)
                    case Heartbeat():
                        yield standing_message(last)

    async def GetQueueStatus(
        self,
        request: jobs_pb2.GetQueueStatusRequest,  # noqa: ARG002  # it has no fields
        context: ServicerContext[Any, Any],
    ) -> jobs_pb2.GetQueueStatusResponse:
        """Tell how full the queues are."""
        await caller_of(self._front, context)
        queues = await self._front.jobs.queue_status()
        return jobs_pb2.GetQueueStatusResponse(
            queue_depth=sum(queue.depth for queue in queues), queues=[queue_message(queue) for queue in queues]
        )

    async def GetCredits(
        self,
        request: jobs_pb2.GetCreditsRequest,  # noqa: ARG002  # it has no fields
        context: ServicerContext[Any, Any],
    ) -> jobs_pb2.GetCreditsResponse:
        """Tell the caller's credits."""
        caller = await caller_of(self._front, context)
        balance = await self._front.parts.credits.balance(caller.user_id)
        return jobs_pb2.GetCreditsResponse(available=balance.available, reserved=balance.reserved)

    async def _message(self, job: Job) -> jobs_pb2.Job:
        return job_message(job, await self._front.sign(job))
