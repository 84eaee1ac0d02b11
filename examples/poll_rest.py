"""Asks for three pictures over REST, polls and saves them here: `OURVIDZ_TOKEN=… python examples/poll_rest.py`."""

import os
import sys
import time
from pathlib import Path

import httpx

URL = os.environ.get("OURVIDZ_URL", "http://127.0.0.1:8000")
AUTHORIZATION = {"Authorization": f"Bearer {os.environ['OURVIDZ_TOKEN']}"}
REQUEST = {"jobType": "sdxl_image_fast", "metadata": {"prompt": "a lighthouse at dawn", "num_images": 3}}

with httpx.Client(base_url=URL, headers=AUTHORIZATION, timeout=30) as api:
    queued = api.post("/api/queue-job", json=REQUEST).raise_for_status().json()["job"]
    while (job := api.get(f"/api/jobs/{queued['id']}").raise_for_status().json())["status"] in ("queued", "processing"):
        print(f"{job['progress']} %")
        time.sleep(1)

if job["status"] != "completed":
    sys.exit(f"{job['status']}: {job['error_message']}")
for index, url in enumerate(job["assets"]):
    # The URL is signed and may lead to another host: it needs no token, and must not be sent one.
    Path(f"{index}.png").write_bytes(httpx.get(url, timeout=60).raise_for_status().content)
    print(f"{index}.png")
