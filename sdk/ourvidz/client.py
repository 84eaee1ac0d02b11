"""The client: jobs over gRPC, their files over HTTP."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar
from urllib.parse import urljoin

import grpc
import httpx

from ourvidz.api.assets.v1 import assets_pb2, assets_pb2_grpc
from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from ourvidz.channel import open_channel
from ourvidz.errors import (
    BY_REASON,
    DownloadFailed,
    InvalidRequest,
    OurVidzError,
    ServerFailure,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from ourvidz.jobs import (
    Asset,
    Job,
    JobEvent,
    JobPage,
    JobState,
    event_from_message,
    job_from_message,
    reference_from_message,
)
from ourvidz.references import ReferenceImage, ReferenceType
from ourvidz.rpc_status import parse

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_URL = "http://127.0.0.1:8000"

CALL_TIMEOUT_S = 30.0
DOWNLOAD_TIMEOUT_S = 60.0
UPLOAD_TIMEOUT_S = 120.0
CHUNK_BYTES = 256 * 1024
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0

Response = TypeVar("Response")


class Client:
    """Jobs of one user: asked for, watched, and their files fetched. Safe to use from several threads.

    `address` is the gateway's gRPC `host:port`, `url` its REST base (only relative asset URLs need it), `token` the
    user's JWT. Nothing is connected before the first call. Close it, or use it in a `with`.

    Every call raises a kind of `OurVidzError`: `Unauthenticated` and `Unreachable` from all of them.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, token: str | None = None, *, url: str = DEFAULT_URL) -> None:
        if token is not None and not all("!" <= character <= "~" for character in token):
            raise Unauthenticated("The token holds characters that no token has")
        self.address = address
        self._url = url
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel = open_channel(address)
        self._stub = jobs_pb2_grpc.JobServiceStub(self._channel)
        self._assets = assets_pb2_grpc.AssetServiceStub(self._channel)
        self._http = httpx.Client(
            timeout=DOWNLOAD_TIMEOUT_S, follow_redirects=True, transport=httpx.HTTPTransport(retries=2)
        )

    @classmethod
    def from_environment(cls) -> Self:
        """Make a client from `OURVIDZ_GRPC`, `OURVIDZ_URL` and `OURVIDZ_TOKEN`, or their defaults."""
        return cls(
            os.environ.get("OURVIDZ_GRPC") or DEFAULT_ADDRESS,
            os.environ.get("OURVIDZ_TOKEN") or None,
            url=os.environ.get("OURVIDZ_URL") or DEFAULT_URL,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; a `watch` that still runs ends with an error."""
        self._channel.close()
        self._http.close()

    def create_job(
        self,
        job_type: str,
        prompt: str,
        *,
        negative_prompt: str = "",
        image_count: int | None = None,
        seed: int | None = None,
        reference_image_url: str = "",
        reference_type: ReferenceType | None = None,
        start_reference_image_url: str = "",
        end_reference_image_url: str = "",
        reference_strength: float | None = None,
        request_id: str | None = None,
    ) -> Job:
        """Ask for a job. When this returns, the job is durable and will end in a terminal state.

        `image_count` is 1, 3 or 6 for SDXL types; `seed` is 0 to 2³² − 1, one is drawn when it is absent.

        Images of SDXL types follow the picture at `reference_image_url`; clips start and end with those at
        `start_reference_image_url` and `end_reference_image_url`. Each is the URL of a picture that was uploaded or
        made here, or one on a host that the service allows. `reference_strength` is 0.0 to 1.0, where 1.0 is closest
        to the picture; 0.5 when it is absent.

        The same `request_id` within 24 hours answers with the same job; without one, each call makes a job.
        Raises `InvalidRequest`, `InvalidReferenceImage`, `NoRenderer`, `QueueFull`, `InsufficientCredits` and `IdempotencyConflict`.
        """
        try:
            request = jobs_pb2.CreateJobRequest(
                job_type=job_type,
                prompt=prompt,
                negative_prompt=negative_prompt,
                image_count=image_count,
                seed=seed,
                reference_image_url=reference_image_url,
                reference_type=_reference_type(reference_type),
                start_reference_image_url=start_reference_image_url,
                end_reference_image_url=end_reference_image_url,
                reference_strength=reference_strength,
                request_id=request_id or str(uuid.uuid4()),
            )
        except ValueError as error:  # a number or a text that the wire has no form for
            raise InvalidRequest(str(error)) from error
        response = self._call(self._stub.CreateJob, request)
        return job_from_message(response.job)

    def upload_reference(self, path: Path) -> ReferenceImage:
        """Store a picture for jobs to follow: a PNG, JPEG or WebP file of at most 10 MiB and 50 megapixels.

        Raises `InvalidReferenceImage`, `FileTooLarge`, and `OSError` when the file can't be read.
        """
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            response = self._call(self._assets.UploadReferenceImage, _upload(file, path.name, size), UPLOAD_TIMEOUT_S)
        return reference_from_message(response.reference_image)

    def get_job(self, job_id: str) -> Job:
        """Return one job. Raises `JobNotFound`."""
        response = self._call(self._stub.GetJob, jobs_pb2.GetJobRequest(job_id=job_id))
        return job_from_message(response.job)

    def cancel_job(self, job_id: str) -> Job:
        """Cancel a job, and return it as it stands then; one that runs ends within a step, and one that ended stays.

        Outputs that were stored by then stay, too. Raises `JobNotFound`.
        """
        response = self._call(self._stub.CancelJob, jobs_pb2.CancelJobRequest(job_id=job_id))
        return job_from_message(response.job)

    def list_jobs(
        self, *, page_size: int = 20, page_token: str | None = None, state: JobState | None = None
    ) -> JobPage:
        """Return a page of 1 to 100 jobs, newest first. Raises `InvalidRequest`."""
        request = jobs_pb2.ListJobsRequest(page_size=page_size, page_token=page_token or "")
        if state is not None:
            request.state = jobs_pb2.JobState.Value(f"JOB_STATE_{state.name}")
        response = self._call(self._stub.ListJobs, request)
        return JobPage(tuple(job_from_message(job) for job in response.jobs), response.next_page_token or None)

    def watch(self, job_id: str, *, resume_from: int = 0, patience_s: float = 120.0) -> Iterator[JobEvent]:
        """Yield the job's events, each once and in order, until the job has ended.

        `resume_from` is the `sequence` of the last event seen; 0 begins with the first. A stream that breaks is opened
        again after the last event, with growing pauses, until nothing was heard for `patience_s` seconds: then its
        last error is raised. Raises `JobNotFound`.
        """
        seen = resume_from
        pause = FIRST_PAUSE_S
        deadline = time.monotonic() + patience_s
        while True:
            try:
                for event in self._events(job_id, seen):
                    pause = FIRST_PAUSE_S
                    deadline = time.monotonic() + patience_s
                    # A heartbeat has no number: it says only that the connection lives.
                    if event.sequence > seen:
                        seen = event.sequence
                        yield event
                        if event.state.terminal:
                            return
                # A stream that ends well before a terminal event: the caller has seen that one, or the server drains.
                if self.get_job(job_id).state.terminal:
                    return
            except Unavailable as error:
                if time.monotonic() + pause > deadline:
                    raise
                pause = max(pause, error.retry_after_s or 0)
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def download(self, asset: Asset, path: Path) -> None:
        """Write the asset's bytes to a new file.

        Raises `FileExistsError` if there is a file already, and `DownloadFailed`, leaving no file, if the bytes did
        not all come.
        """
        with path.open("xb") as file:
            try:
                # The URL carries its own signature, and may lead to another host: the token stays here.
                with self._http.stream("GET", urljoin(self._url, asset.url)) as response:
                    response.raise_for_status()
                    for piece in response.iter_bytes():
                        file.write(piece)
                if file.tell() != asset.size_bytes:
                    raise DownloadFailed(f"{path.name}: {file.tell()} of {asset.size_bytes} bytes came")
            except BaseException as error:
                path.unlink()
                if isinstance(error, httpx.HTTPStatusError):
                    raise DownloadFailed(
                        f"{path.name}: the store answered {error.response.status_code} {error.response.reason_phrase}"
                    ) from error
                if isinstance(error, httpx.HTTPError):
                    raise DownloadFailed(f"{path.name}: {error}") from error
                raise

    def _call(
        self,
        method: Callable[..., Response],
        request: object,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Response:
        try:
            return method(request, metadata=self._metadata, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._readable(error) from error

    def _events(self, job_id: str, after: int) -> Iterator[JobEvent]:
        request = jobs_pb2.WatchJobRequest(job_id=job_id, resume_from=after)
        call = self._stub.WatchJob(request, metadata=self._metadata)
        try:
            for message in call:
                yield event_from_message(message)
        except grpc.RpcError as error:
            raise self._readable(error) from error
        finally:
            call.cancel()

    def _readable(self, error: grpc.RpcError) -> OurVidzError:
        """Turn what gRPC raised into the exception that its reason, or else its code, stands for."""
        status = parse(error)
        if status.reason == status.code.name and status.code in _BROKEN:
            kind: type[OurVidzError] = Unreachable
            # gRPC tells the whole way down to the socket; the last part is the one that says why.
            message = f"No answer from {self.address}: {status.message.rpartition(': ')[2]}"
        else:
            kind = BY_REASON.get(status.reason) or _BY_CODE.get(status.code, ServerFailure)
            message = status.message
        return kind(message, reason=status.reason, retry_after_s=status.retry_after_s, fields=status.fields)


def _upload(file: BinaryIO, name: str, size: int) -> Iterator[assets_pb2.UploadReferenceImageRequest]:
    yield assets_pb2.UploadReferenceImageRequest(header=assets_pb2.UploadHeader(filename=name, size_bytes=size))
    while chunk := file.read(CHUNK_BYTES):
        yield assets_pb2.UploadReferenceImageRequest(chunk=chunk)


def _reference_type(kind: ReferenceType | None) -> jobs_pb2.ReferenceType.ValueType:
    if kind is None:
        return jobs_pb2.REFERENCE_TYPE_UNSPECIFIED
    return jobs_pb2.ReferenceType.Value(f"REFERENCE_TYPE_{kind.name}")


_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
"""How gRPC itself reports a server that is away, going away, or stuck; a server of ours gives a reason of its own."""

_BY_CODE: dict[grpc.StatusCode, type[OurVidzError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Unavailable,
}
"""What a reason that this client does not know comes down to."""
