"""A server's life: start, health, reflection, /metrics, and an end that nobody notices."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ourvidz.api.enhance.v1.enhance_pb2 import EnhanceRequest, GetEnhancerRequest
from ourvidz.rpc_status import parse
from ourvidz_serving.errors import Draining
from ourvidz_serving.server import Server, StartError
from ourvidz_serving.settings import ServerSettings, SettingsError
from support.scripted_server import ASSETS, ENHANCE, Running, piece, read_all, serve

TOKEN = "a-token-of-the-services"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def check(running: Running, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(running.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


def watch(running: Running, service: str) -> grpc.aio.UnaryStreamCall:
    return health_pb2_grpc.HealthStub(running.channel).Watch(health_pb2.HealthCheckRequest(service=service))


async def test_a_service_serves_once_it_says_so_and_the_server_when_all_do() -> None:
    async with serve() as running:
        assert [await check(running, name) for name in (ENHANCE, ASSETS, "")] == [NOT_SERVING] * 3
        running.server.set_serving(ENHANCE, True)
        assert [await check(running, name) for name in (ENHANCE, ASSETS, "")] == [SERVING, NOT_SERVING, NOT_SERVING]
        running.server.set_serving(ASSETS, True)
        assert [await check(running, name) for name in (ENHANCE, ASSETS, "")] == [SERVING] * 3


async def test_health_knows_no_service_that_the_server_does_not_have() -> None:
    async with serve() as running:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await check(running, "made.up.Service")
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        call = watch(running, "made.up.Service")
        assert (await call.read()).status == SERVICE_UNKNOWN
        call.cancel()


async def test_watch_tells_each_watcher_of_every_change_to_the_end_of_the_server() -> None:
    async with serve() as running:
        calls = [watch(running, ENHANCE), watch(running, ENHANCE), watch(running, "")]
        assert [(await call.read()).status for call in calls] == [NOT_SERVING] * 3
        for service in (ENHANCE, ASSETS):
            running.server.set_serving(service, True)
        assert [(await call.read()).status for call in calls] == [SERVING] * 3
        drained = asyncio.create_task(running.server.drain())
        assert [(await call.read()).status for call in calls] == [NOT_SERVING] * 3
        # The watches end by themselves, so that they don't keep the server.
        assert [await call.read() for call in calls] == [grpc.aio.EOF] * 3
        await drained


async def test_what_was_set_during_a_drain_does_not_undo_it() -> None:
    async with serve() as running:
        draining, go_on = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            draining.set()
            await go_on.wait()

        running.server.on_drain(hold)
        drained = asyncio.create_task(running.server.drain())
        await draining.wait()
        running.server.set_serving(ENHANCE, True)
        assert await check(running, ENHANCE) == NOT_SERVING
        go_on.set()
        await drained


async def test_health_and_reflection_need_no_service_token() -> None:
    async with serve(service_token=TOKEN, require_service_token=True) as running:
        assert await check(running, ENHANCE) == NOT_SERVING
        call = watch(running, ENHANCE)
        assert (await call.read()).status == NOT_SERVING
        call.cancel()
        stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = await read_all(stub.ServerReflectionInfo(iter([request])))
    named = {service.name for service in answers[0].list_services_response.service}
    assert named == {ENHANCE, ASSETS, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_metrics_are_served_over_http() -> None:
    async with serve() as running:
        await check(running, ENHANCE)
        url = f"http://127.0.0.1:{running.server.metrics_port}/metrics"
        text = (await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())).decode()
        port = running.server.metrics_port
    handled = 'grpc_server_handled_total{grpc_code="OK",grpc_method="Check",grpc_service="grpc.health.v1.Health"} 1.0'
    assert handled in text
    assert "process_resident_memory_bytes" in text
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the port outlived the server"


async def test_servers_in_one_process_keep_their_figures_apart() -> None:
    async with serve() as one, serve() as other:
        await check(one, ENHANCE)
        assert one.metric("grpc_server_handled_total") == 1
        assert other.metric("grpc_server_handled_total") == 0


async def test_a_drain_lets_a_running_stream_finish_and_takes_no_new_call() -> None:
    go_on = asyncio.Event()

    async def enhance(request, context):
        yield piece("before")
        await go_on.wait()
        yield piece("after")

    async with serve() as running:
        running.scripted.enhance = enhance
        call = running.enhancer.Enhance(EnhanceRequest())
        first = await call.read()
        gone = watch(running, "")
        await gone.read()
        drained = asyncio.create_task(running.server.drain())
        await read_all(gone)  # ends right before the server stops to take calls
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await running.enhancer.GetEnhancer(GetEnhancerRequest())
        go_on.set()
        rest = await read_all(call)
        await drained
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert [first, *rest] == [piece("before"), piece("after")]


async def test_drain_callbacks_run_in_order_while_calls_are_still_answered() -> None:
    happened = []

    async def get(request, context):
        raise Draining("this server is about to leave")

    async with serve() as running:
        running.scripted.get = get

        async def first() -> None:
            happened.append(await check(running, ENHANCE))
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await running.enhancer.GetEnhancer(GetEnhancerRequest())
            happened.append(parse(raised.value).reason)
            raise RuntimeError("one part fails")

        async def second() -> None:
            happened.append("second")

        running.server.set_serving(ENHANCE, True)
        running.server.on_drain(first)
        running.server.on_drain(second)
        await running.server.drain()
    assert happened == [NOT_SERVING, "DRAINING", "second"]


@pytest.mark.parametrize("impatient", [False, True])
async def test_calls_that_do_not_end_are_stopped_after_the_grace_or_a_second_signal(impatient: bool) -> None:
    stopped = asyncio.Event()

    async def enhance(request, context):
        try:
            yield piece("once")
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with serve(drain_grace_s=3600 if impatient else 0.05) as running:
        running.scripted.enhance = enhance
        call = running.enhancer.Enhance(EnhanceRequest())
        await call.read()
        running.server.stop()
        drained = asyncio.create_task(running.server.drain())
        if impatient:
            running.server.stop()
        await drained
        await asyncio.wait_for(stopped.wait(), 10)
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()


async def test_a_port_that_is_taken_is_a_start_error_that_names_it() -> None:
    async with serve() as running:
        second = Server(ServerSettings(grpc_port=running.server.port), name="second", require_service_token=False)
        with pytest.raises(StartError, match=rf"second can't listen on 127\.0\.0\.1:{running.server.port}"):
            await second.start()
        third = Server(
            ServerSettings(metrics_port=running.server.metrics_port), name="third", require_service_token=False
        )
        with pytest.raises(StartError, match=rf"/metrics on 127\.0\.0\.1:{running.server.metrics_port}"):
            await third.start()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "renderer.example"])
async def test_a_server_that_others_can_reach_must_have_a_service_token(host: str) -> None:
    with pytest.raises(SettingsError, match="OURVIDZ_SERVICE_TOKEN"):
        Server(ServerSettings(grpc_host=host), name="sdxl", require_service_token=True)
    Server(ServerSettings(grpc_host=host, service_token=TOKEN), name="sdxl", require_service_token=True)
    Server(ServerSettings(grpc_host=host), name="gateway", require_service_token=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
async def test_a_server_on_loopback_needs_no_service_token(host: str) -> None:
    Server(ServerSettings(grpc_host=host), name="sdxl", require_service_token=True)


PROGRAM = """
from ourvidz_serving import logs
from ourvidz_serving.server import Server, run
from ourvidz_serving.settings import ServerSettings, load

async def main():
    settings = load(ServerSettings)
    logs.configure(settings.log_level, settings.log_format)
    await Server(settings, name="example", require_service_token=True).run()

run(main)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "example.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_server_and_ends_it_with_0(program: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, program], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "server started" in process.stderr.readline()
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(30) == 0
    assert [word for word in ("server drains", "server stopped") if word in rest] == ["server drains", "server stopped"]
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("environment", "code", "said"),
    [
        ({"OURVIDZ_GRPC_PORT": "many"}, 2, "OURVIDZ_GRPC_PORT"),
        ({"OURVIDZ_GRPC_HOST": "0.0.0.0"}, 2, "OURVIDZ_SERVICE_TOKEN"),
        ({"OURVIDZ_GRPC_HOST": "192.0.2.1", "OURVIDZ_SERVICE_TOKEN": TOKEN}, 1, "192.0.2.1"),
    ],
)
def test_a_server_that_can_not_start_says_why_in_a_few_words(
    program: Path, environment: dict[str, str], code: int, said: str
) -> None:
    ran = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == code
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert TOKEN not in ran.stderr
