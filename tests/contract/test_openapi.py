"""The description of the REST API is true and complete: what it says is what the gateway does."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import jsonschema_rs
import pytest
from fastapi.routing import iter_route_contexts

from contract.driver import made
from contract.refusals import OPERATORS, SAID
from contract.world import World
from support import fronts
from support.pictures import file_of, halves

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = 5
SEED = 20_260_127
PATIENCE_S = 250

UNDESCRIBED = {("HEAD", "/objects/{bucket}/{key:path}"), ("HEAD", "/openapi.json"), ("GET", "/openapi.json")}
"""What is there and not described, and need not be; and /docs, which is no part of the API."""

OPEN = {"/healthz", "/readyz", "/objects/{bucket}/{key}"}
"""What asks for no token."""

CHECKS_LEFT_OUT = "positive_data_acceptance"
"""No schema can say which page tokens a list has returned, which bytes are a picture, or what somebody can pay for."""


async def description(world: World) -> dict[str, Any]:
    async with world.http(None) as anybody:
        answer = await anybody.get("/openapi.json")
    assert answer.status_code == 200
    described: dict[str, Any] = answer.json()
    return described


def operations(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


async def test_every_route_is_described(world: World):
    routes = {
        (method, context.path) for context in iter_route_contexts(world.app.routes) for method in context.methods or ()
    }
    described = {(method, path) for method, path, _ in operations(await description(world))}
    undescribed = {route for route in routes if not route[1].startswith("/docs")} - UNDESCRIBED
    assert {(method, path.replace(":path", "")) for method, path in undescribed} == described


async def test_every_call_says_which_token_it_needs_and_what_is_answered_without(world: World):
    described = await description(world)
    schemes = described["components"]["securitySchemes"]
    assert schemes["token"] == {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": schemes["token"]["description"],
    }
    for _, path, operation in operations(described):
        if path in OPEN:
            assert "security" not in operation
            assert "401" not in operation["responses"]
        else:
            assert {"token": []} in operation["security"]
            assert "WWW-Authenticate" in operation["responses"]["401"]["headers"]


async def test_every_error_has_a_status_of_its_own_and_the_one_shape(world: World):
    for method, path, operation in operations(await description(world)):
        assert operation["summary"]
        assert "default" not in operation["responses"]
        for status, answer in operation["responses"].items():
            content = answer.get("content", {})
            if int(status) < 400 or "text/plain" in content:
                continue
            assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorReply"}, (method, path)
            assert answer["description"]


async def test_the_examples_of_errors_are_what_is_sent_for_their_reasons(world: World):
    described = await description(world)
    valid = validator(described, {"$ref": "#/components/schemas/ErrorReply"})
    seen = set()
    for _, _, operation in operations(described):
        for status, answer in operation["responses"].items():
            for example in answer.get("content", {}).get("application/json", {}).get("examples", {}).values():
                value = example["value"]
                valid.validate(value)
                reason = value["details"].split()[0].removeprefix("reason=")
                seen.add(reason)
                if reason in SAID and int(status) != 413:
                    assert int(status) == SAID[reason].http
                    assert SAID[reason].flag is None or value[SAID[reason].flag] is True
    assert set(SAID) - OPERATORS <= seen


async def test_the_examples_of_requests_and_replies_fit_their_schemas(world: World):
    described = await description(world)
    body = next(operation for _, path, operation in operations(described) if path == "/api/queue-job")["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    validator(described, schema).validate(schema["example"])
    checked = 0
    for component in described["components"]["schemas"].values():
        if "example" in component:
            validator(described, component).validate(component["example"])
            checked += 1
        for field in component.get("properties", {}).values():
            for example in field.get("examples", ()):
                validator(described, field).validate(example)
                checked += 1
    assert checked > 20


def validator(described: dict[str, Any], schema: dict[str, Any]) -> Any:
    return jsonschema_rs.validator_for({**schema, "components": described["components"]})


async def test_every_event_of_a_stream_fits_its_schema(world: World):
    described = await description(world)
    answer = described["paths"]["/api/jobs/{job_id}/events"]["get"]["responses"]["200"]
    schema = answer["content"]["text/event-stream"]["itemSchema"]
    driver = world.driver("rest", "listener")
    created = [await driver.create(prompt=prompt) for prompt in ("a fox", "invalid")]
    seen = set()
    async with world.http(f"Bearer {fronts.token('listener')}") as client:
        for job in created:
            text = (await client.get(f"/api/jobs/{job.id}/events", params={"preview": True})).text
            for block in text.replace("\r\n", "\n").strip().split("\n\n"):
                event = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
                validator(described, schema).validate(event)
                (kind,) = (each for each in schema["oneOf"] if each["properties"]["event"]["const"] == event["event"])
                content = {**kind["properties"]["data"]["contentSchema"], "additionalProperties": False}
                validator(described, content).validate(json.loads(event["data"]))
                seen.add((event["event"], "error_message" in event["data"]))
    assert {("state", False), ("step", False), ("state", True)} <= seen


async def test_schemathesis_finds_no_answer_that_is_not_described(world: World, tmp_path: Path):
    driver = world.driver("rest", "schemathesis")
    job = await made(driver)
    await driver.upload(file_of(halves()))
    config = tmp_path / "schemathesis.toml"
    url = urlsplit(job.assets[0].url)
    bucket, key = unquote(url.path.removeprefix("/objects/")).split("/", 1)
    config.write_text(
        # An ended job's stream ends; without an id of that kind, there is nothing but 404.
        settled("/api/jobs/{job_id}/events", {"path.job_id": job.id})
        + settled(
            "/objects/{bucket}/{key}",
            {"path.bucket": bucket, "path.key": key, "query.token": parse_qs(url.query)["token"][0]},
        )
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--no-color",
        f"--config-file={config}",
        "run",
        f"{world.url}/openapi.json",
        f"--header=Authorization: Bearer {fronts.token('schemathesis')}",
        f"--exclude-checks={CHECKS_LEFT_OUT}",
        f"--max-examples={EXAMPLES}",
        f"--seed={SEED}",
        "--generation-deterministic",
        "--continue-on-failure",
        "--no-shrink",
        "--request-timeout=60",
        "--warnings=off",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = said.decode()
    assert process.returncode == 0, text
    count = len(operations(await description(world)))
    assert f"Selected: {count}/{count}" in text
    assert f"Tested: {count}" in text


def settled(path: str, parameters: dict[str, str]) -> str:
    lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in parameters.items()]
    return "\n".join([f"[[operations]]\ninclude-path = {json.dumps(path)}", "[operations.parameters]", *lines, ""])
