"""`ourvidz.api.jobs.v1.JobService`. Errors are raised as they are; the server's interceptor turns them into statuses."""

# ruff: noqa: N802  # the contract names the methods

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
from grpc.aio import ServicerContext

from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from ourvidz_gateway.errors import InvalidRequest
from ourvidz_gateway.front import DEFAULT_PAGE_SIZE, Front, parse_job_id, parse_sequence
from ourvidz_gateway.jobs import Job, JobFilter
from ourvidz_gateway.rpc.caller import caller_of
from ourvidz_gateway.rpc.messages import (
    STATES,
    draft_of,
    event_message,
    field_name,
    job_message,
    queue_message,
    state_of,
)

SERVICE = "ourvidz.api.jobs.v1.JobService"


class JobServicer(jobs_pb2_grpc.JobServiceServicer):
    """Users' jobs over gRPC. Lives as long as the server; holds nothing of its own."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def CreateJob(
        self, request: jobs_pb2.CreateJobRequest, context: ServicerContext[Any, Any]
    ) -> jobs_pb2.CreateJobResponse:
        """Accept a job."""
        caller = await caller_of(self._front, context)
        try:
            accepted, job_type = await self._front.create_job(draft_of(request), caller.user_id)
        except InvalidRequest as error:
            error.violations = tuple(replace(each, field=field_name(each.field)) for each in error.violations)
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
        """Stream a job's events until it has ended."""
        caller = await caller_of(self._front, context)
        after = parse_sequence(request.resume_from, field="resume_from")
        async with self._front.watch_job(caller.user_id, parse_job_id(request.job_id), after=after) as events:
            async for event in events:
                yield event_message(event)

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
        """Answer UNIMPLEMENTED: this server charges nothing."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "This server keeps no credits: jobs cost nothing here.")

    async def _message(self, job: Job) -> jobs_pb2.Job:
        return job_message(job, await self._front.sign(job))
