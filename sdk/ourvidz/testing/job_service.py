"""The double's JobService."""

# ruff: noqa: N802  # the contract names the methods

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta

import grpc

from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from ourvidz.errors import InvalidRequest
from ourvidz.testing import pictures
from ourvidz.testing.admission import admit
from ourvidz.testing.lists import check_filters, page_of
from ourvidz.testing.reception import Reception
from ourvidz.testing.refusals import bad_field
from ourvidz.testing.runs import Runs
from ourvidz.testing.world import FakeJob, World

QUEUES = ("sdxl_queue", "wan_queue", "enhancer_queue")


class FakeJobService(jobs_pb2_grpc.JobServiceServicer):
    """Takes jobs as the service does, and lets `runs` make them. Holds nothing of its own."""

    def __init__(
        self,
        world: World,
        reception: Reception,
        runs: Runs,
        *,
        reference_hosts: Collection[str],
        webhook_hosts: Collection[str],
    ) -> None:
        self._world = world
        self._reception = reception
        self._runs = runs
        self._reference_hosts = reference_hosts
        self._webhook_hosts = webhook_hosts

    def CreateJob(
        self, request: jobs_pb2.CreateJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.CreateJobResponse:
        """Accept a job."""
        with self._reception.call("CreateJob", request, context) as user_id:
            job = self._world.accepted_before(user_id, request)
            if job is None:
                job = self._accept(user_id, request)
            return jobs_pb2.CreateJobResponse(
                job=self._world.show(job),
                queue_length=len(self._world.waiting(job.job_type.queue)),
                model_variant=job.job_type.model_variant,
            )

    def GetJob(self, request: jobs_pb2.GetJobRequest, context: grpc.ServicerContext) -> jobs_pb2.GetJobResponse:
        """Return one job."""
        with self._reception.call("GetJob", request, context) as user_id:
            job = self._world.find_job(user_id, request.job_id)
            return jobs_pb2.GetJobResponse(job=self._world.show(job))

    def ListJobs(self, request: jobs_pb2.ListJobsRequest, context: grpc.ServicerContext) -> jobs_pb2.ListJobsResponse:
        """Return a page of the caller's jobs, newest first."""
        with self._reception.call("ListJobs", request, context) as user_id:
            check_filters(request)
            if request.state not in jobs_pb2.JobState.values():
                raise bad_field(InvalidRequest, f"There is no job state {request.state}.", "state")
            found = [
                job
                for job in self._world.jobs.values()
                if job.message.user_id == user_id
                and all(
                    getattr(request, field) in ("", getattr(job.message, field))
                    for field in ("job_type", "project_id", "video_id", "image_id")
                )
                and request.state in (jobs_pb2.JOB_STATE_UNSPECIFIED, job.message.state)
            ]
            page, token = page_of(
                found, lambda job: job.number, page_size=request.page_size, page_token=request.page_token
            )
            return jobs_pb2.ListJobsResponse(jobs=[self._world.show(job) for job in page], next_page_token=token)

    def CancelJob(
        self, request: jobs_pb2.CancelJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.CancelJobResponse:
        """Cancel a job and tell what was found."""
        with self._reception.call("CancelJob", request, context) as user_id:
            job = self._world.find_job(user_id, request.job_id)
            found = job.message.state
            if not job.ended:
                self._world.cancel(job)
            return jobs_pb2.CancelJobResponse(job=self._world.show(job), found_state=found)

    def WatchJob(
        self, request: jobs_pb2.WatchJobRequest, context: grpc.ServicerContext
    ) -> Iterator[jobs_pb2.WatchJobResponse]:
        """Stream a job's events until it has ended; those who ask for previews get one after each step."""
        with self._reception.call("WatchJob", request, context) as user_id:
            job = self._world.find_job(user_id, request.job_id)
            if request.resume_from < 0:
                raise bad_field(InvalidRequest, "resume_from must be 0 or more.", "resume_from")
        context.add_callback(self._wake)
        seen = request.resume_from
        while (event := self._next_event(job, seen, context)) is not None:
            yield event
            seen = event.sequence
            if request.previews and event.HasField("step"):
                yield jobs_pb2.WatchJobResponse(
                    state=event.state,
                    stage=event.stage,
                    progress_percent=event.progress_percent,
                    attempt=event.attempt,
                    preview_jpeg=pictures.preview(),
                )

    def GetQueueStatus(
        self, request: jobs_pb2.GetQueueStatusRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.GetQueueStatusResponse:
        """Tell how full the queues are."""
        with self._reception.call("GetQueueStatus", request, context):
            queues = [self._queue(name) for name in QUEUES]
            return jobs_pb2.GetQueueStatusResponse(queue_depth=sum(queue.depth for queue in queues), queues=queues)

    def GetCredits(
        self, request: jobs_pb2.GetCreditsRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.GetCreditsResponse:
        """Return the caller's credits."""
        with self._reception.call("GetCredits", request, context) as user_id:
            account = self._world.account(user_id)
            return jobs_pb2.GetCreditsResponse(available=account.available, reserved=account.reserved)

    def _accept(self, user_id: str, request: jobs_pb2.CreateJobRequest) -> FakeJob:
        admitted = admit(
            request,
            is_own=lambda url: self._world.is_own(user_id, url),
            reference_hosts=self._reference_hosts,
            webhook_hosts=self._webhook_hosts,
        )
        job = self._world.accept(user_id, request, admitted)
        self._runs.start(job)
        return job

    def _next_event(self, job: FakeJob, seen: int, context: grpc.ServicerContext) -> jobs_pb2.WatchJobResponse | None:
        """Wait for the event after `seen`; None when there will be none, or nobody listens any more."""
        with self._world.changed:
            self._world.changed.wait_for(
                lambda: len(job.events) > seen or job.ended or self._world.closed or not context.is_active()
            )
            return job.events[seen] if len(job.events) > seen and context.is_active() else None

    def _wake(self) -> None:
        with self._world.changed:
            self._world.changed.notify_all()

    def _queue(self, name: str) -> jobs_pb2.QueueStatus:
        waiting = self._world.waiting(name)
        running = [
            job
            for job in self._world.jobs.values()
            if job.job_type.queue == name and job.message.state == jobs_pb2.JOB_STATE_PROCESSING
        ]
        queue = jobs_pb2.QueueStatus(name=name, depth=len(waiting), running=len(running), renderer_count=1)
        if waiting:
            oldest = min(job.message.create_time.ToDatetime(tzinfo=UTC) for job in waiting)
            queue.oldest_wait.FromTimedelta(max(datetime.now(UTC) - oldest, timedelta()))
        return queue
