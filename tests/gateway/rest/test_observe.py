"""What operators see of the REST API."""

from typing import Any

import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry

from ourvidz_gateway.rest import create_rest_app
from ourvidz_gateway.rest.observe import Observed
from ourvidz_serving.tracing import current_trace_id, open_provider
from support import fronts
from support.memory_jobs import MemoryJobs

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def client(tmp_path, registry) -> httpx.AsyncClient:
    app = Observed(
        create_rest_app(fronts.front(MemoryJobs(), tmp_path)), registry=registry, traces=open_provider("gateway")
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_requests_are_counted_by_route_and_not_by_path(client, registry):
    for number in range(3):
        await client.get(f"/api/jobs/{number}")
        await client.get(f"/no/such/page/{number}")

    def count(**labels: str) -> float | None:
        return registry.get_sample_value("http_requests_total", labels)

    assert count(method="GET", route="/api/jobs/{job_id}", status="401") == 3
    assert count(method="unknown", route="unknown", status="404") == 3
    timed = {"method": "GET", "route": "/api/jobs/{job_id}"}
    assert registry.get_sample_value("http_request_duration_seconds_count", timed) == 3


async def test_each_request_is_one_log_line_but_probes_are_none(client):
    with structlog.testing.capture_logs() as lines:
        await client.get("/api/queue-status")
        await client.get("/healthz")

    assert [(line["route"], line["status"]) for line in lines] == [("/api/queue-status", 401)]


async def test_a_request_continues_its_callers_trace(registry):
    seen = []

    async def app(scope, receive, send):
        seen.append(current_trace_id())

    observed = Observed(app, registry=registry, traces=open_provider("gateway"))
    headers = [(b"traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode())]
    await observed({"type": "http", "method": "GET", "path": "/", "headers": headers}, None, None)

    assert seen == [TRACE]


async def test_methods_that_callers_make_up_are_one_in_the_metrics():
    registry = CollectorRegistry()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = type("Route", (), {"path": "/api/jobs"})()
        await send({"type": "http.response.start", "status": 405, "headers": []})

    observed = Observed(app, registry=registry, traces=open_provider("test"))

    async def send(_: Any) -> None:
        pass

    for method in ("GET", "MADE", "UP"):
        await observed({"type": "http", "method": method, "path": "/api/jobs", "headers": []}, None, send)  # type: ignore[arg-type]

    methods = {sample.labels["method"] for family in registry.collect() for sample in family.samples}
    assert methods == {"GET", "unknown"}
