"""The web app of the reference: its functions, calling as a browser's `fetch` calls, with the headers as printed."""

from __future__ import annotations

import json
from typing import Any

import httpx

from integration.waiting import until

PATIENCE_S = 240
ENDED = ("completed", "failed", "cancelled")


class WebApp:
    """A signed-in user's page. Every function that the reference prints is here under its name, in Python's spelling."""

    def __init__(self, http: httpx.Client, token: str) -> None:
        self._http = http
        self._token = token

    def fetch(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: str | None = None,
        form: dict[str, tuple[str, bytes]] | None = None,
    ) -> httpx.Response:
        """Send as browsers do: a string is text/plain unless it is called something else, a form says its own type."""
        sent = dict(headers or {})
        if body is not None:
            sent.setdefault("Content-Type", "text/plain;charset=UTF-8")
        return self._http.request(method, path, headers=sent, content=body, files=form)

    @property
    def authorized(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def queue(self, body: dict[str, Any], *, as_json: bool = True) -> httpx.Response:
        """POST a job, with the JSON header where the reference's example has it."""
        headers = {**self.authorized, **({"Content-Type": "application/json"} if as_json else {})}
        return self.fetch("/api/queue-job", method="POST", headers=headers, body=json.dumps(body))

    def check_job_status(self, job_id: str) -> dict[str, Any]:
        reply = self.fetch(f"/api/jobs/{job_id}", headers=self.authorized)
        assert reply.status_code == 200, reply.text
        job: dict[str, Any] = reply.json()
        return job

    def monitor_job(self, job_id: str) -> dict[str, Any]:
        """Poll until the job has ended."""

        def ended() -> dict[str, Any] | None:
            job = self.check_job_status(job_id)
            assert job["status"] in ("queued", "processing", *ENDED)
            return job if job["status"] in ENDED else None

        return until(ended, PATIENCE_S)

    def upload_reference_image(self, file: bytes, name: str = "reference.png") -> str:
        reply = self.fetch("/api/upload-reference", method="POST", headers=self.authorized, form={"file": (name, file)})
        assert reply.status_code == 200, reply.text
        url: str = reply.json()["url"]
        return url

    def create_job_with_reference(
        self, job_type: str, prompt: str, reference_url: str, strength: float, kind: str
    ) -> dict[str, Any]:
        return self._created(
            {
                "jobType": job_type,
                "metadata": {
                    "prompt": prompt,
                    "reference_image_url": reference_url,
                    "reference_strength": strength,
                    "reference_type": kind,
                },
            },
            as_json=False,
        )

    def create_reproducible_job(self, prompt: str, seed: int) -> dict[str, Any]:
        metadata = {"prompt": prompt, "num_images": 3, "seed": seed}
        return self._created({"jobType": "sdxl_image_fast", "metadata": metadata})

    def regenerate_with_seed(self, original_seed: int) -> dict[str, Any]:
        metadata = {"prompt": "same character in different pose", "num_images": 1, "seed": original_seed}
        return self._created({"jobType": "sdxl_image_high", "metadata": metadata})

    def upload_and_create_job(
        self, job_type: str, prompt: str, file: bytes, strength: float, kind: str, seed: int
    ) -> str:
        reference_url = self.upload_reference_image(file)
        result = self._created(
            {
                "jobType": job_type,
                "metadata": {
                    "prompt": prompt,
                    "reference_image_url": reference_url,
                    "reference_strength": strength,
                    "reference_type": kind,
                    "num_images": 3,
                    "seed": seed,
                },
            },
            as_json=False,
        )
        assert result["success"], result["error"]
        job_id: str = result["job"]["id"]
        return job_id

    def create_video_with_references(self, prompt: str, start: str, end: str, strength: float) -> dict[str, Any]:
        metadata = {
            "prompt": prompt,
            "start_reference_image_url": start,
            "end_reference_image_url": end,
            "reference_strength": strength,
        }
        return self._created({"jobType": "video_fast", "metadata": metadata})

    def generate_character_series(self, character_prompt: str, seed: int) -> list[str]:
        poses = ["standing pose", "sitting pose", "walking pose", "action pose"]
        results = []
        for pose in poses:
            metadata = {"prompt": f"{character_prompt}, {pose}", "num_images": 1, "seed": seed}
            results.append(self._created({"jobType": "sdxl_image_fast", "metadata": metadata})["job"]["id"])
        return results

    def check_queue_health(self) -> dict[str, Any]:
        status: dict[str, Any] = self.fetch("/api/queue-status", headers=self.authorized).json()
        return status

    def _created(self, body: dict[str, Any], *, as_json: bool = True) -> dict[str, Any]:
        reply = self.queue(body, as_json=as_json)
        assert reply.status_code == 200, reply.text
        result: dict[str, Any] = reply.json()
        return result
