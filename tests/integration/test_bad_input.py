"""Bad input over the real stack: a clear error in the reference's shape, and nothing left behind."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest

from integration.curl import curl
from integration.stack import Stack

GOOD = {"jobType": "sdxl_image_fast", "metadata": {"prompt": "a lighthouse"}}


def asking(**metadata: Any) -> str:
    return json.dumps({"jobType": "sdxl_image_fast", "metadata": {"prompt": "a lighthouse", **metadata}})


BODIES = {
    "unknown job type": (json.dumps({**GOOD, "jobType": "sdxl"}), 400, {}),
    "two images": (asking(num_images=2), 400, {"invalidQuantity": True}),
    "a seed of abc": (asking(seed="abc"), 400, {"invalidSeed": True}),
    "a seed too large": (asking(seed=2**32), 400, {"invalidSeed": True}),
    "no prompt": (json.dumps({"jobType": "sdxl_image_fast"}), 400, {}),
    "a prompt of 100 kB": (asking(prompt="x" * 100_000), 400, {}),
    "NUL in the prompt": (asking(prompt="a\0b"), 400, {}),
    "NUL in a key of the caller's own": (asking(**{"a\0": 1}), 400, {}),
    "half a character": ('{"jobType": "sdxl_image_fast", "metadata": {"prompt": "\\ud800"}}', 400, {}),
    "a reference from anywhere": (
        asking(reference_image_url="https://a.example/x.png"),
        400,
        {"referenceImageError": True},
    ),
    "an unknown field": (json.dumps({**GOOD, "jobtype": "x"}), 400, {}),
    "not JSON": ("{", 400, {}),
    "a list": ("[]", 400, {}),
    "two megabytes": (json.dumps({**GOOD, "metadata": {"prompt": "a", "x": "y" * 2_000_000}}), 413, {}),
}


def holdings(stack: Stack) -> dict[str, Any]:
    """How many rows and objects there are."""
    tables = [row["tablename"] for row in stack.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    # Leases are renewed all the time, and steps of ended jobs are pruned.
    kept = {
        table: "WHERE milestone" if table == "job_events" else "" for table in tables if table != "gateway_sessions"
    }
    counts = {table: stack.rows(f"SELECT count(*) FROM {table} {where}")[0][0] for table, where in kept.items()}
    return {**counts, "objects": sorted(str(path) for path in stack.objects.rglob("*") if path.is_file())}


@pytest.mark.parametrize("what", BODIES)
def test_a_bad_request_is_refused_and_leaves_nothing(stack: Stack, what: str, tmp_path):
    body, status, flags = BODIES[what]
    (tmp_path / "body").write_text(body)
    before = holdings(stack)

    answer = curl(
        f"{stack.url}/api/queue-job",
        "--header",
        "Content-Type: application/json",
        "--data-binary",
        f"@{tmp_path / 'body'}",
        token=stack.token("bad"),
    )

    assert answer.status == status, answer.body
    error = answer.json()
    assert error["success"] is False
    assert error["error"]
    assert flags.items() <= error.items()
    assert holdings(stack) == before


def test_bytes_that_are_no_text_are_refused(stack: Stack, tmp_path):
    (tmp_path / "body").write_bytes(b'{"jobType": "\xff"}')
    answer = curl(f"{stack.url}/api/queue-job", "--data-binary", f"@{tmp_path / 'body'}", token=stack.token("bad"))
    assert (answer.status, answer.json()["success"]) == (400, False)


@pytest.mark.parametrize("what", ["none", "garbage", "of another secret"])
def test_a_bad_token_is_a_401_and_leaves_nothing(stack: Stack, what: str):
    claims = jwt.decode(stack.token("bad"), options={"verify_signature": False})
    resigned = jwt.encode(claims, "another secret, which is long enough as well", algorithm="HS256")
    token = {"none": None, "garbage": "abc", "of another secret": resigned}[what]
    before = holdings(stack)

    answer = curl(f"{stack.url}/api/queue-job", "--data", json.dumps(GOOD), token=token)

    assert (answer.status, answer.json()["success"]) == (401, False)
    assert holdings(stack) == before


def test_an_expired_token_of_the_right_secret_is_a_401(stack: Stack):
    secret = json.loads((stack.data_dir / "secrets.json").read_text())["jwt"]
    token = jwt.encode({"sub": "bad", "aud": "authenticated", "exp": 1}, secret, algorithm="HS256")

    answer = curl(f"{stack.url}/api/jobs", token=token)

    assert (answer.status, answer.json()["success"]) == (401, False)


@pytest.mark.parametrize(
    "path", ["/api/nothing", "/api/jobs/not-an-id", "/objects/sdxl-image-fast/..%2f..%2fsecrets.json"]
)
def test_what_is_not_there_is_an_error_in_the_same_shape(stack: Stack, path: str):
    answer = curl(f"{stack.url}{path}", token=stack.token("bad"))
    assert answer.status in (403, 404)
    assert answer.json()["success"] is False
