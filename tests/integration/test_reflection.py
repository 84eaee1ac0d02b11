"""A generic gRPC client that knows no proto file: `buf curl` with reflection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from integration.stack import Stack

BUF = Path(sys.executable).with_name("buf")


def call(stack: Stack, method: str, **message: object) -> list[dict]:
    """Call a method and return the messages that it answers."""
    command = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--emit-defaults"]
    url = f"http://{stack.grpc_address}/ourvidz.api.jobs.v1.JobService/{method}"
    header = f"Authorization: Bearer {stack.token('reflecting')}"
    done = subprocess.run(
        [*command, "-H", header, "-d", json.dumps(message), url], capture_output=True, text=True, check=True, timeout=60
    )
    decoder, text, messages = json.JSONDecoder(), done.stdout.strip(), []
    while text:
        found, end = decoder.raw_decode(text)
        messages.append(found)
        text = text[end:].lstrip()
    return messages


def test_a_job_is_created_and_watched_step_by_step(stack: Stack):
    [created] = call(stack, "CreateJob", job_type="sdxl_image_fast", prompt="a lighthouse", seed=3)
    assert created["job"]["state"] == "JOB_STATE_QUEUED"

    events = call(stack, "WatchJob", job_id=created["job"]["id"])

    assert [event["step"]["step"] for event in events if "step" in event] == list(range(1, 21))
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["state"] == "JOB_STATE_COMPLETED"
    [found] = call(stack, "GetJob", job_id=created["job"]["id"])
    assert found["job"]["assets"][0]["url"].startswith(stack.url)
    [status] = call(stack, "GetQueueStatus")
    assert [queue["name"] for queue in status["queues"]] == ["sdxl_queue", "wan_queue", "enhancer_queue"]
