"""A user of the REST API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx

from contract.driver import AssetView, Created, EventView, FileView, JobView, QueueView, ReferenceView, Refused

FLAGS = ("referenceImageError", "invalidQuantity", "invalidSeed")

_TOP = {
    "project_id": "projectId",
    "video_id": "videoId",
    "image_id": "imageId",
    "webhook_url": "webhookUrl",
    "start_timeout_s": "startTimeoutSeconds",
}


class RestDriver:
    front = "rest"

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def create(
        self, job_type: str = "sdxl_image_fast", prompt: str = "a fox", *, key: str | None = None, **fields: Any
    ) -> Created:
        metadata = {"prompt": prompt, **fields.pop("metadata", {})}
        body: dict[str, Any] = {"jobType": job_type, "metadata": metadata}
        for name, value in fields.items():
            if name in _TOP:
                body[_TOP[name]] = value
            else:
                metadata["num_images" if name == "image_count" else name] = value
        headers = {} if key is None else {"Idempotency-Key": key}
        reply = await self._json("POST", "/api/queue-job", json=body, headers=headers)
        job = reply["job"]
        return Created(
            id=job["id"],
            user_id=job["user_id"],
            job_type=job["job_type"],
            state=job["status"],
            metadata=job["metadata"],
            queue_length=reply["queueLength"],
            model_variant=reply["modelVariant"],
        )

    async def get(self, job_id: str) -> JobView:
        return _job(await self._json("GET", f"/api/jobs/{job_id}"))

    async def page(self, **query: Any) -> tuple[list[JobView], str]:
        if "state" in query:
            query["status"] = query.pop("state")
        reply = await self._json("GET", "/api/jobs", params=query)
        return [_job(job) for job in reply["jobs"]], reply["next_cursor"] or ""

    async def cancel(self, job_id: str) -> tuple[str, JobView]:
        reply = await self._json("POST", f"/api/jobs/{job_id}/cancel")
        assert reply["success"] is True
        return reply["found_status"], _job(reply["job"])

    async def watch(self, job_id: str, after: int = 0) -> AsyncIterator[EventView]:
        headers = {"Last-Event-ID": str(after)} if after else {}
        async with self._client.stream("GET", f"/api/jobs/{job_id}/events", headers=headers) as answer:
            if not answer.is_success:
                await answer.aread()
                raise _refused(answer)
            sent: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name:
                    sent[name] = value
                elif sent.get("event") in ("state", "step"):
                    event = _event(json.loads(sent["data"]))
                    assert str(event.sequence) == sent["id"]
                    yield event
                if not name:
                    sent = {}

    async def upload(self, data: bytes, filename: str = "cat.png") -> ReferenceView:
        reply = await self._json("POST", "/api/upload-reference", files={"file": (filename, data)})
        assert reply["success"] is True
        return _reference(reply)

    async def references(self, **query: Any) -> tuple[list[ReferenceView], str]:
        reply = await self._json("GET", "/api/reference-images", params=query)
        return [_reference(each) for each in reply["reference_images"]], reply.get("next_cursor") or ""

    async def delete_reference(self, image_id: str) -> None:
        await self._empty("DELETE", f"/api/reference-images/{image_id}")

    async def assets(self, **query: Any) -> tuple[list[FileView], str]:
        reply = await self._json("GET", "/api/assets", params=query)
        return [_file(each) for each in reply["assets"]], reply.get("next_cursor") or ""

    async def delete_asset(self, asset_id: str) -> None:
        await self._empty("DELETE", f"/api/assets/{asset_id}")

    async def credits(self) -> tuple[int, int]:
        reply = await self._json("GET", "/api/credits")
        return reply["available"], reply["reserved"]

    async def queues(self) -> tuple[int, list[QueueView]]:
        reply = await self._json("GET", "/api/queue-status")
        return reply["queueDepth"], [
            QueueView(name, queue["depth"], queue["running"], queue["oldestSeconds"], queue["renderers"])
            for name, queue in reply["queues"].items()
        ]

    async def _json(self, method: str, path: str, **request: Any) -> Any:
        answer = await self._client.request(method, path, **request)
        if not answer.is_success:
            raise _refused(answer)
        assert answer.status_code == 200
        return answer.json()

    async def _empty(self, method: str, path: str) -> None:
        answer = await self._client.request(method, path)
        if not answer.is_success:
            raise _refused(answer)
        assert (answer.status_code, answer.content) == (204, b"")


def _refused(answer: httpx.Response) -> Refused:
    said = answer.json()
    assert said["success"] is False
    details = dict(part.partition("=")[::2] for part in said["details"].split(" ") if "=" in part)
    retry_after = answer.headers.get("retry-after")
    return Refused(
        status=answer.status_code,
        reason=details.get("reason", ""),
        message=said["error"],
        retry_after_s=None if retry_after is None else float(retry_after),
        fields=tuple(part.removeprefix("field=") for part in said["details"].split(" ") if part.startswith("field=")),
        flags=frozenset(flag for flag in FLAGS if flag in said),
        retryable=said["retryable"],
        suggested_action=said.get("suggestedAction"),
        raw=f"{answer.headers.raw!r} {answer.text}",
    )


def _job(job: dict[str, Any]) -> JobView:
    return JobView(
        id=job["id"],
        user_id=job["user_id"],
        job_type=job["job_type"],
        state=job["status"],
        stage=job["stage"],
        progress=job["progress"],
        metadata=job["metadata"],
        assets=[AssetView(*each) for each in zip(job["asset_ids"], job["assets"], strict=True)],
        error_message=job["error_message"],
        credits=job["credits"],
        warnings=job["warnings"],
        project_id=job["project_id"],
        video_id=job["video_id"],
        image_id=job["image_id"],
        created_at=datetime.fromisoformat(job["created_at"]),
        started_at=_moment(job["started_at"]),
        ended_at=_moment(job["completed_at"]),
    )


def _event(data: dict[str, Any]) -> EventView:
    step = None
    if "step" in data:
        step = (data["step"], data["step_count"], data["image_index"], data["image_count"])
    return EventView(
        sequence=data["sequence"],
        state=data["status"],
        stage=data["stage"],
        progress=data["progress"],
        attempt=data["attempt"],
        step=step,
        error_message=data.get("error_message"),
    )


def _reference(image: dict[str, Any]) -> ReferenceView:
    return ReferenceView(
        id=image["id"],
        url=image["url"],
        mime_type=image["mime_type"],
        width_px=image["width"],
        height_px=image["height"],
        size_bytes=image["size_bytes"],
    )


def _file(asset: dict[str, Any]) -> FileView:
    return FileView(
        id=asset["id"],
        job_id=asset["job_id"],
        job_type=asset["job_type"],
        url=asset["url"],
        mime_type=asset["mime_type"],
        size_bytes=asset["size_bytes"],
        width_px=asset["width"],
        height_px=asset["height"],
        duration_s=asset.get("duration_seconds"),
        seed=asset.get("seed"),
        project_id=asset.get("project_id"),
        created_at=datetime.fromisoformat(asset["created_at"]),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
