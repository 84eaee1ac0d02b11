"""The gateway's services, answering what a test has written down, on a real gRPC server.

An RPC that nobody wrote an answer for is UNIMPLEMENTED, and answers that nobody asked for fail the test at its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from ourvidz.api.admin.v1 import admin_pb2_grpc
from ourvidz.api.assets.v1 import assets_pb2_grpc
from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc

UNARY = (
    *("CreateJob", "GetJob", "ListJobs", "CancelJob", "GetQueueStatus", "GetCredits"),
    *("ListReferenceImages", "DeleteReferenceImage", "ListAssets", "DeleteAsset"),
)
ADMIN = (
    *("GrantCredits", "GetCredits", "ListDeliveries", "RetryDelivery"),
    *("ListQuarantined", "ReleaseQuarantined"),
)


@dataclass(frozen=True)
class Failure:
    """An error as our servers send it, or a bare one, as a broken connection gives it, where there is no reason."""

    code: grpc.StatusCode
    message: str = "broken"
    reason: str = ""
    retry_after_s: int | None = None
    fields: dict[str, str] = field(default_factory=dict)

    def abort(self, context: Any) -> None:
        if not self.reason:
            context.abort(self.code, self.message)
        details: list[Any] = [error_details_pb2.ErrorInfo(reason=self.reason, domain="ourvidz")]
        if self.retry_after_s is not None:
            details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=self.retry_after_s)))
        if self.fields:
            violation = error_details_pb2.BadRequest.FieldViolation
            violations = [violation(field=name, description=text) for name, text in self.fields.items()]
            details.append(error_details_pb2.BadRequest(field_violations=violations))
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        context.abort_with_status(rpc_status.to_status(status))


@dataclass(frozen=True)
class Call:
    """One call as it came in."""

    method: str
    request: Any
    metadata: dict[str, str]
    time_limit_s: float
    """How long its caller will wait yet; for ever is many years."""


class ScriptedJobs(jobs_pb2_grpc.JobServiceServicer, assets_pb2_grpc.AssetServiceServicer):
    """Answers calls in the order written down with `answer`; keeps the `calls` that came."""

    address = ""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.held = Event()
        """Set once a stream has sent all that it has and is kept open by a `hold`."""
        self._script: deque[tuple[str, Sequence[Any]]] = deque()
        self._flowing = Event()
        self._flowing.set()
        for method in UNARY:
            setattr(self, method, self._unary(method))
        self.admin = admin_pb2_grpc.AdminServiceServicer()
        for method in ADMIN:
            setattr(self.admin, method, self._unary(f"Admin/{method}"))

    def answer(self, method: str, *parts: Any) -> None:
        """Write down the next answer: messages, a `Failure` as the last part, or `hold` to leave the stream open.

        A method of AdminService is named `Admin/GetCredits`.
        """
        self._script.append((method, parts))

    @contextmanager
    def stuck(self) -> Iterator[None]:
        """Answer no call before the end of the block."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    def assert_all_asked_for(self) -> None:
        assert not self._script, f"nobody asked for: {[method for method, _ in self._script]}"

    def requests(self, method: str) -> list[Any]:
        return [call.request for call in self.calls if call.method == method]

    def WatchJob(self, request: Any, context: Any) -> Iterator[Any]:  # the contract's name
        for part in self._next("WatchJob", request, context):
            if part == "hold":
                released = Event()
                context.add_callback(released.set)
                self.held.set()
                released.wait()
            elif isinstance(part, Failure):
                part.abort(context)
            else:
                yield part

    def UploadReferenceImage(self, request_iterator: Any, context: Any) -> Any:  # the contract's name
        (part,) = self._next("UploadReferenceImage", list(request_iterator), context)
        if isinstance(part, Failure):
            part.abort(context)
        return part

    def _unary(self, method: str) -> Any:
        def handle(request: Any, context: Any) -> Any:
            (part,) = self._next(method, request, context)
            if isinstance(part, Failure):
                part.abort(context)
            return part

        return handle

    def _next(self, method: str, request: Any, context: Any) -> Sequence[Any]:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self.calls.append(Call(method, request, metadata, context.time_remaining()))
        self._flowing.wait()
        if not self._script or self._script[0][0] != method:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the script has no answer for {method} here")
        return self._script.popleft()[1]


@contextmanager
def served(jobs: ScriptedJobs, port: int = 0) -> Iterator[ScriptedJobs]:
    """Serve the script on loopback; its `address` says where."""
    pool = ThreadPoolExecutor(max_workers=8)
    server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
    jobs_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    assets_pb2_grpc.add_AssetServiceServicer_to_server(jobs, server)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(jobs.admin, server)
    jobs.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield jobs
    finally:
        server.stop(None).wait()
        pool.shutdown()


def job(state: str = "COMPLETED", **fields: Any) -> jobs_pb2.Job:
    """Write a job; what is not given is plausible."""
    given: dict[str, Any] = {
        "id": "1f3a9c2e-8a51-4d0c-9f3e-2b7c64d0a111",
        "user_id": "demo",
        "job_type": "sdxl_image_fast",
        "state": jobs_pb2.JobState.Value(f"JOB_STATE_{state}"),
        "progress_percent": 100 if state == "COMPLETED" else 0,
        **fields,
    }
    return jobs_pb2.Job(**given)


def event(sequence: int, state: str = "PROCESSING", stage: str = "UNSPECIFIED", **fields: Any) -> Any:
    """Write an event."""
    return jobs_pb2.WatchJobResponse(
        sequence=sequence,
        state=jobs_pb2.JobState.Value(f"JOB_STATE_{state}"),
        stage=jobs_pb2.JobStage.Value(f"JOB_STAGE_{stage}"),
        **fields,
    )


def step(sequence: int, step: int, image: int = 0) -> Any:
    """Write the event of a step: one of 20, of three images."""
    detail = jobs_pb2.StepDetail(step=step, step_count=20, image_index=image, image_count=3)
    return event(sequence, stage="RENDERING", progress_percent=(image * 20 + step) * 100 // 60, step=detail)


def preview(jpeg: bytes) -> Any:
    """Write a preview, which has no number."""
    return event(0, stage="RENDERING", preview_jpeg=jpeg)
