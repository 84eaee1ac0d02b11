"""A call is followed from server to server, and each log line says what it belongs to."""

from __future__ import annotations

import json
import subprocess
import sys

import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ourvidz.api.enhance.v1.enhance_pb2 import EnhanceRequest, GetEnhancerRequest, GetEnhancerResponse
from ourvidz_serving.tracing import current_trace_id, inject
from support.scripted_server import piece, read_all, serve

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


def seen(context) -> GetEnhancerResponse:
    """Answer with what a handler sees of its trace and job."""
    job_id = structlog.contextvars.get_contextvars().get("job_id", "")
    return GetEnhancerResponse(model=current_trace_id(), model_error=job_id)


async def test_a_call_goes_on_with_its_callers_trace_and_job() -> None:
    async def get(request, context):
        return seen(context)

    async with serve() as running:
        running.scripted.get = get
        exporter = InMemorySpanExporter()
        running.server.traces.add_span_processor(SimpleSpanProcessor(exporter))
        metadata = (("traceparent", TRACEPARENT), ("x-ourvidz-job-id", "job-1"))
        answer = await running.enhancer.GetEnhancer(GetEnhancerRequest(), metadata=metadata)
        (span,) = exporter.get_finished_spans()
    assert (answer.model, answer.model_error) == (TRACE, "job-1")
    assert span.name == "ourvidz.api.enhance.v1.EnhanceService/GetEnhancer"
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.resource.attributes["service.name"] == "scripted"
    assert span.attributes == {"rpc.grpc.status_code": 0}


async def test_a_broken_trace_begins_a_new_one_and_no_call_inherits_anothers_job() -> None:
    async def get(request, context):
        return seen(context)

    async with serve() as running:
        running.scripted.get = get
        metadata = (("traceparent", "nonsense"), ("x-ourvidz-job-id", "job-1"))
        first = await running.enhancer.GetEnhancer(GetEnhancerRequest(), metadata=metadata)
        second = await running.enhancer.GetEnhancer(GetEnhancerRequest())
    assert len(first.model) == len(second.model) == 32
    assert first.model != second.model
    assert second.model_error == ""


async def test_a_server_that_calls_another_hands_trace_and_job_on() -> None:
    async with serve() as front, serve() as back:

        async def get_behind(request, context):
            return seen(context)

        async def enhance_behind(request, context):
            yield piece(f"{current_trace_id()} {seen(context).model_error}")

        async def get(request, context):
            answer = await back.enhancer.GetEnhancer(GetEnhancerRequest())
            (streamed,) = await read_all(back.enhancer.Enhance(EnhanceRequest()))
            assert streamed.piece.text == f"{answer.model} {answer.model_error}"
            return answer

        back.scripted.get, back.scripted.enhance, front.scripted.get = get_behind, enhance_behind, get
        metadata = (("traceparent", TRACEPARENT), ("x-ourvidz-job-id", "job-1"))
        answer = await front.enhancer.GetEnhancer(GetEnhancerRequest(), metadata=metadata)
    assert (answer.model, answer.model_error) == (TRACE, "job-1")


async def test_metadata_given_by_hand_wins_over_what_is_running() -> None:
    with structlog.contextvars.bound_contextvars(job_id="running"):
        assert inject([("x-ourvidz-job-id", "given"), ("a", "b")]) == (("x-ourvidz-job-id", "given"), ("a", "b"))
        assert inject() == (("x-ourvidz-job-id", "running"),)


LOGGING = """
import logging, warnings
import structlog
from ourvidz_serving import logs, tracing

logs.configure("info", "{format}")
metadata = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("x-ourvidz-job-id", "job-1")]
with tracing.server_span(tracing.open_provider("example"), "/a.B/C", metadata):
    structlog.get_logger("ours").info("render began", step=3)
    logging.getLogger("uvicorn.error").warning("%s of another", "a line")
try:
    raise ValueError("画 is wrong")
except ValueError:
    structlog.get_logger("ours").exception("it failed")
structlog.get_logger("ours").debug("not asked for")
warnings.warn("mind this")
"""


def log_lines(log_format: str) -> list[str]:
    program = LOGGING.replace("{format}", log_format)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == ""
    return ran.stderr.splitlines()


def test_lines_of_ours_and_of_libraries_are_json_alike_off_a_terminal() -> None:
    ours, theirs, failed, warned = (json.loads(line) for line in log_lines("auto"))
    of_call = {"job_id": "job-1", "trace_id": TRACE}
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {"event": "render began", "step": 3, "level": "info", "logger": "ours", **of_call}
    theirs.pop("timestamp")
    assert theirs == {"event": "a line of another", "level": "warning", "logger": "uvicorn.error", **of_call}
    assert "ValueError: 画 is wrong" in failed["exception"]
    assert "trace_id" not in failed
    assert "mind this" in warned["event"]


def test_lines_on_a_console_are_for_people() -> None:
    text = "\n".join(log_lines("console"))
    assert "render began" in text
    assert "job-1" in text
    assert '{"' not in text
