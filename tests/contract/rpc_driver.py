"""A user of the gRPC API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from contract.driver import AssetView, Created, EventView, FileView, JobView, QueueView, ReferenceView, Refused
from ourvidz import rpc_status
from ourvidz.api.assets.v1 import assets_pb2, assets_pb2_grpc
from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc

CHUNK_BYTES = 2**18


class RpcDriver:
    front = "grpc"

    def __init__(self, channel: grpc.aio.Channel, authorization: str | None) -> None:
        self._jobs = jobs_pb2_grpc.JobServiceStub(channel)
        self._files = assets_pb2_grpc.AssetServiceStub(channel)
        self._metadata = () if authorization is None else (("authorization", authorization),)

    async def create(
        self, job_type: str = "sdxl_image_fast", prompt: str = "a fox", *, key: str | None = None, **fields: Any
    ) -> Created:
        if "reference_type" in fields:
            fields["reference_type"] = f"REFERENCE_TYPE_{fields['reference_type'].upper()}"
        if "start_timeout_s" in fields:
            fields["start_timeout"] = Duration(seconds=fields.pop("start_timeout_s"))
        request = jobs_pb2.CreateJobRequest(job_type=job_type, prompt=prompt, request_id=key or "", **fields)
        reply = await self._call(self._jobs.CreateJob, request)
        job = _job(reply.job)
        return Created(
            id=job.id,
            user_id=job.user_id,
            job_type=job.job_type,
            state=job.state,
            metadata=job.metadata,
            queue_length=reply.queue_length,
            model_variant=reply.model_variant,
        )

    async def get(self, job_id: str) -> JobView:
        return _job((await self._call(self._jobs.GetJob, jobs_pb2.GetJobRequest(job_id=job_id))).job)

    async def page(self, **query: Any) -> tuple[list[JobView], str]:
        if "state" in query:
            query["state"] = f"JOB_STATE_{query['state'].upper()}"
        reply = await self._call(self._jobs.ListJobs, jobs_pb2.ListJobsRequest(**query))
        return [_job(job) for job in reply.jobs], reply.next_page_token

    async def cancel(self, job_id: str) -> tuple[str, JobView]:
        reply = await self._call(self._jobs.CancelJob, jobs_pb2.CancelJobRequest(job_id=job_id))
        return _state(reply.found_state), _job(reply.job)

    async def watch(self, job_id: str, after: int = 0) -> AsyncIterator[EventView]:
        request = jobs_pb2.WatchJobRequest(job_id=job_id, resume_from=after)
        call = self._jobs.WatchJob(request, metadata=self._metadata)
        try:
            async for event in call:
                if event.sequence:
                    yield _event(event)
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from None
        finally:
            call.cancel()

    async def upload(self, data: bytes, filename: str = "cat.png") -> ReferenceView:
        parts = [assets_pb2.UploadReferenceImageRequest(header=assets_pb2.UploadHeader(filename=filename))]
        parts += [
            assets_pb2.UploadReferenceImageRequest(chunk=data[start : start + CHUNK_BYTES])
            for start in range(0, len(data), CHUNK_BYTES)
        ]
        return _reference((await self._call(self._files.UploadReferenceImage, iter(parts))).reference_image)

    async def references(self, **query: Any) -> tuple[list[ReferenceView], str]:
        reply = await self._call(self._files.ListReferenceImages, assets_pb2.ListReferenceImagesRequest(**query))
        return [_reference(image) for image in reply.reference_images], reply.next_page_token

    async def delete_reference(self, image_id: str) -> None:
        request = assets_pb2.DeleteReferenceImageRequest(reference_image_id=image_id)
        await self._call(self._files.DeleteReferenceImage, request)

    async def assets(self, **query: Any) -> tuple[list[FileView], str]:
        reply = await self._call(self._files.ListAssets, assets_pb2.ListAssetsRequest(**query))
        return [_file(asset) for asset in reply.assets], reply.next_page_token

    async def delete_asset(self, asset_id: str) -> None:
        await self._call(self._files.DeleteAsset, assets_pb2.DeleteAssetRequest(asset_id=asset_id))

    async def credits(self) -> tuple[int, int]:
        reply = await self._call(self._jobs.GetCredits, jobs_pb2.GetCreditsRequest())
        return reply.available, reply.reserved

    async def queues(self) -> tuple[int, list[QueueView]]:
        reply = await self._call(self._jobs.GetQueueStatus, jobs_pb2.GetQueueStatusRequest())
        return reply.queue_depth, [
            QueueView(
                queue.name,
                queue.depth,
                queue.running,
                queue.oldest_wait.ToTimedelta().total_seconds() if queue.HasField("oldest_wait") else None,
                queue.renderer_count,
            )
            for queue in reply.queues
        ]

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from None


def _refused(error: grpc.aio.AioRpcError) -> Refused:
    parsed = rpc_status.parse(error)
    return Refused(
        status=parsed.code,
        reason=parsed.reason,
        message=parsed.message,
        retry_after_s=parsed.retry_after_s,
        fields=tuple(violation.field for violation in parsed.fields),
        flags=None,
        retryable=None,
        suggested_action=None,
        raw=f"{error.details()} {error.initial_metadata()} {error.trailing_metadata()}",
    )


def _job(job: jobs_pb2.Job) -> JobView:
    return JobView(
        id=job.id,
        user_id=job.user_id,
        job_type=job.job_type,
        state=_state(job.state),
        stage=_stage(job.stage),
        progress=job.progress_percent,
        metadata=MessageToDict(job.metadata),
        assets=[AssetView(asset.id, asset.url) for asset in job.assets],
        error_message=job.error_message or None,
        credits=job.credits,
        warnings=list(job.warnings),
        project_id=job.project_id or None,
        video_id=job.video_id or None,
        image_id=job.image_id or None,
        created_at=_moment(job.create_time),
        started_at=_moment(job.start_time) if job.HasField("start_time") else None,
        ended_at=_moment(job.end_time) if job.HasField("end_time") else None,
    )


def _event(event: jobs_pb2.WatchJobResponse) -> EventView:
    step, detail = None, event.WhichOneof("detail")
    if detail == "step":
        step = (event.step.step, event.step.step_count, event.step.image_index, event.step.image_count)
    return EventView(
        sequence=event.sequence,
        state=_state(event.state),
        stage=_stage(event.stage),
        progress=event.progress_percent,
        attempt=event.attempt,
        step=step,
        error_message=event.error_message if detail == "error_message" else None,
    )


def _reference(image: assets_pb2.ReferenceImage) -> ReferenceView:
    return ReferenceView(
        id=image.id,
        url=image.url,
        mime_type=image.mime_type,
        width_px=image.width_px,
        height_px=image.height_px,
        size_bytes=image.size_bytes,
    )


def _file(asset: assets_pb2.Asset) -> FileView:
    return FileView(
        id=asset.id,
        job_id=asset.job_id,
        job_type=asset.job_type,
        url=asset.url,
        mime_type=asset.mime_type,
        size_bytes=asset.size_bytes,
        width_px=asset.width_px,
        height_px=asset.height_px,
        duration_s=asset.duration.ToTimedelta().total_seconds() if _has(asset, "duration") else None,
        seed=asset.seed if _has(asset, "seed") else None,
        project_id=asset.project_id or None,
        created_at=_moment(asset.create_time),
    )


def _has(message: Message, field: str) -> bool:
    return message.HasField(field)


def _state(value: int) -> str:
    return jobs_pb2.JobState.Name(value).removeprefix("JOB_STATE_").lower()


def _stage(value: int) -> str | None:
    return None if value == 0 else jobs_pb2.JobStage.Name(value).removeprefix("JOB_STAGE_").lower()


def _moment(time: Timestamp) -> datetime:
    return time.ToDatetime(UTC)
