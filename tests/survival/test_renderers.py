"""What becomes of jobs when renderers or their engines die, and of those whose renderer never comes up."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest

from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz_serving.channel import open_channel
from support.cluster.audit import audit, until_ended
from support.cluster.cluster import SERVICE_TOKEN, TESTS, Cluster
from support.cluster.nodes import Node
from support.fronts import token

STEPS = 20
"""Of each job type."""


async def outcomes(cluster: Cluster, job_id: str) -> list[str]:
    """How each attempt at a job ended."""
    rows = await cluster.rows("SELECT outcome FROM attempts WHERE job_id = $1 ORDER BY attempt", UUID(job_id))
    return [row["outcome"] for row in rows]


async def hashes(cluster: Cluster, job_id: str) -> list[bytes]:
    """What the files of a job are."""
    rows = await cluster.rows("SELECT sha256 FROM assets WHERE job_id = $1 ORDER BY index", UUID(job_id))
    return [row["sha256"] for row in rows]


async def get_renderer(address: str) -> render_pb2.GetRendererResponse:
    """Ask a renderer what it is and how it stands."""
    async with open_channel(address, service_token=SERVICE_TOKEN) as channel:
        stub = render_pb2_grpc.RenderServiceStub(channel)
        return await stub.GetRenderer(render_pb2.GetRendererRequest(), timeout=10)


async def ourvidz(cluster: Cluster, *arguments: str) -> str:
    """Run the command line as an operator does; return what it prints."""
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OURVIDZ_")},
        "OURVIDZ_GRPC": cluster.gateways[0].node.address,
        "OURVIDZ_URL": cluster.gateways[0].url,
        "OURVIDZ_TOKEN": token("olga", role="service_role"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ourvidz.cli", *arguments, env=variables, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said
    return said.decode()


async def test_a_killed_engine_costs_one_attempt_and_its_server_stays(cluster: Cluster):
    whole = await cluster.ask(cluster.gateways[0], "a fox pace:50", seed=7, num_images=3)
    job_id = await cluster.ask(cluster.gateways[0], "a fox pace:50", seed=7, num_images=3)
    run = await cluster.until_running(job_id, steps=STEPS + 5)
    node = cluster.renderer(run.address)
    server = node.process.pid

    node.engine.kill()

    await audit(cluster)
    assert await outcomes(cluster, job_id) == ["failed", "completed"]
    assert await hashes(cluster, job_id) == await hashes(cluster, whole)
    assert node.process.pid == server
    assert node.runs
    assert (await get_renderer(node.address)).engine_generation == 2


async def test_a_killed_renderer_costs_one_attempt_and_the_job_goes_elsewhere(cluster: Cluster):
    job_id = await cluster.ask(cluster.gateways[0], "a fox pace:50", seed=8)
    run = await cluster.until_running(job_id, steps=5)

    cluster.renderer(run.address).kill()

    await audit(cluster)
    assert await outcomes(cluster, job_id) == ["failed", "completed"]
    (last,) = await cluster.rows(
        "SELECT address FROM attempts WHERE job_id = $1 AND outcome = 'completed'", UUID(job_id)
    )
    assert last["address"] != run.address


async def test_a_job_that_kills_its_engine_three_times_is_set_apart_and_can_be_released(
    cluster: Cluster, tmp_path: Path
):
    deadly = tmp_path / "deadly"
    deadly.touch()
    deadly_job = await cluster.ask(cluster.gateways[0], f"a fox die-while:{deadly}", user="mallory")
    behind = [await cluster.ask(cluster.gateways[0], "a hare pace:5", user=user) for user in ("alice", "bob") * 3]
    await until_ended(cluster, [deadly_job])

    async with cluster.gateways[0].http("mallory") as http:
        failed = (await http.get(f"/api/jobs/{deadly_job}")).json()
    assert failed["status"] == "failed"
    assert "failed 3 times" in failed["error_message"]
    assert "ENGINE_DIED" in failed["error_message"]
    await audit(cluster, not_completed=[deadly_job])
    assert await outcomes(cluster, deadly_job) == ["failed"] * 3
    for job_id in behind:
        assert await outcomes(cluster, job_id) == ["completed"]

    (listed,) = json.loads(await ourvidz(cluster, "jobs", "quarantined", "--json"))
    assert (listed["job_id"], listed["user_id"], listed["attempt_count"]) == (deadly_job, "mallory", 3)
    deadly.unlink()
    released = (await ourvidz(cluster, "jobs", "release", deadly_job)).strip()

    assert released != deadly_job
    cluster.accepted.append(released)
    await audit(cluster, not_completed=[deadly_job])
    assert json.loads(await ourvidz(cluster, "jobs", "quarantined", "--json")) == []


async def wait_for_model_error(address: str) -> render_pb2.GetRendererResponse:
    """Wait until a renderer says that its model can't be loaded."""
    async with asyncio.timeout(60):
        while True:
            try:
                about = await get_renderer(address)
            except grpc.aio.AioRpcError:
                about = render_pb2.GetRendererResponse()
            if about.model_state == render_pb2.GetRendererResponse.MODEL_STATE_FAILED:
                return about
            await asyncio.sleep(0.1)


async def test_a_renderer_whose_model_cannot_be_loaded_takes_no_job_and_says_why(cluster: Cluster):
    node = cluster.sdxl[0]
    node.kill()
    node.variables["OURVIDZ_PAINTER_BROKEN"] = "true"
    node.launch()
    about = await wait_for_model_error(node.address)
    assert about.model_error == "there are no weights"

    job_ids = [await cluster.ask(cluster.gateways[0], "a fox") for _ in range(4)]
    failed = await failed_before(cluster)
    await audit(cluster, not_completed=failed)

    rows = await cluster.rows(
        "SELECT DISTINCT address FROM attempts WHERE job_id = ANY($1::uuid[])", [UUID(job_id) for job_id in job_ids]
    )
    assert [row["address"] for row in rows] == [cluster.sdxl[1].address]
    del node.variables["OURVIDZ_PAINTER_BROKEN"]
    node.kill()
    await asyncio.to_thread(node.start)


async def failed_before(cluster: Cluster) -> list[str]:
    """The jobs that earlier tests here let fail."""
    return [str(row["id"]) for row in await cluster.rows("SELECT id FROM jobs WHERE quarantined_at IS NOT NULL")]


@pytest.fixture
def without_model(cluster: Cluster, tmp_path: Path) -> Any:
    """A real SDXL renderer that was told of a folder which is not there."""
    port = cluster.sdxl[0].address.rpartition(":")[2]
    cluster.sdxl[0].kill()
    variables = {
        **cluster.sdxl[0].variables,
        "PYTHONPATH": str(TESTS),
        "OURVIDZ_SDXL_GRPC_PORT": port,
        "OURVIDZ_SDXL_METRICS_PORT": "0",
        "OURVIDZ_SDXL_MODEL": str(tmp_path / "models" / "not-there"),
        "OURVIDZ_SDXL_MODEL_CACHE": str(tmp_path),
    }
    node = Node(
        "without-model", "ourvidz_sdxl", variables, tmp_path / "sdxl.log", address=f"127.0.0.1:{port}", ready=bool
    )
    node.launch()
    yield node
    node.close()


async def test_a_model_folder_that_is_not_there_is_named_and_harms_nobody_else(cluster: Cluster, without_model: Node):
    about = await wait_for_model_error(without_model.address)

    assert "not-there" in about.model_error
    assert "\n" not in about.model_error
    assert "Traceback" not in without_model.log.read_text()
    job_id = await cluster.ask(cluster.gateways[0], "a fox")
    await audit(cluster, not_completed=await failed_before(cluster))
    assert await outcomes(cluster, job_id) == ["completed"]
    without_model.terminate()
    await asyncio.to_thread(without_model.wait_ended)
