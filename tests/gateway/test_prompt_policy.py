"""The prompt policy on a real database, and at both fronts: what is refused, what is recorded, what stays untouched."""

import asyncio
import hashlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import uuid4

import grpc
import httpx
import pytest

from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from ourvidz.rpc_status import parse
from ourvidz_gateway import prompt_policy as module
from ourvidz_gateway.database import Database
from ourvidz_gateway.draft import JobDraft
from ourvidz_gateway.errors import DatabaseUnavailable, ModerationUnavailable, PromptRefused
from ourvidz_gateway.front import Front
from ourvidz_gateway.gateway import Gateway, open_gateway
from ourvidz_gateway.jobs import JobState
from ourvidz_gateway.prompt_policy import PromptPolicy
from ourvidz_gateway.rest import create_rest_app
from ourvidz_gateway.rpc import add_services
from ourvidz_serving.server import Server
from ourvidz_serving.storage import LocalStore, UrlSigner
from support import fronts
from support.jobs import CATALOG, Bench, ended, painted_job
from support.scripted_moderation import ScriptedModeration, moderating

BELOW_THE_FLOOR = "naked child"
ADULT = "nude woman"


@pytest.fixture
def endpoint() -> Iterator[ScriptedModeration]:
    with moderating() as endpoint:
        yield endpoint


@asynccontextmanager
async def policy(database: Database, **settings: object) -> AsyncIterator[PromptPolicy]:
    made = PromptPolicy(database, fronts.settings(**settings))
    try:
        yield made
    finally:
        await made.close()


async def refusal_of(made: PromptPolicy, prompt: str = "a fox", negative_prompt: str = "") -> PromptRefused:
    with pytest.raises(PromptRefused) as caught:
        await made.check("alice", prompt=prompt, negative_prompt=negative_prompt)
    return caught.value


async def audit(database: Database) -> list[tuple[object, ...]]:
    rows = await database.fetch("SELECT user_id, job_id, field, rule, prompt_sha256 FROM policy_audit ORDER BY id")
    return [tuple(row) for row in rows]


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


async def test_a_prompt_that_breaks_no_rule_passes_and_leaves_no_trace(database: Database):
    async with policy(database) as made:
        await made.check("alice", prompt="beautiful woman in garden", negative_prompt="blurry, nude, nsfw, child")

    assert await audit(database) == []


@pytest.mark.parametrize("allowed", [False, True])
async def test_no_setting_lifts_the_floor(database: Database, allowed: bool):
    async with policy(database, allow_adult_content=allowed) as made:
        error = await refusal_of(made, BELOW_THE_FLOOR)

    assert (error.http_status, error.grpc_status) == (400, grpc.StatusCode.INVALID_ARGUMENT)
    assert error.message == "The prompt is not allowed here."
    assert [violation.field for violation in error.violations] == ["metadata.prompt"]
    assert await audit(database) == [("alice", None, "prompt", "minor_explicit", sha256(BELOW_THE_FLOOR))]


async def test_the_floor_holds_for_a_negative_prompt(database: Database):
    async with policy(database, allow_adult_content=True) as made:
        error = await refusal_of(made, negative_prompt=BELOW_THE_FLOOR)
        steering = await refusal_of(made, ADULT, negative_prompt="adult")

    assert error.message == steering.message == "The negative prompt is not allowed here."
    assert [violation.field for violation in error.violations] == ["metadata.negative_prompt"]
    assert await audit(database) == [
        ("alice", None, "negative_prompt", "minor_explicit", sha256(BELOW_THE_FLOOR)),
        ("alice", None, "negative_prompt", "adults_excluded", sha256("adult")),
    ]


async def test_adult_content_is_the_operator_s_switch_and_off_by_default(database: Database):
    async with policy(database) as made:
        error = await refusal_of(made, ADULT)
    async with policy(database, allow_adult_content=True) as made:
        await made.check("alice", prompt=ADULT, negative_prompt="")

    assert error.message == "The prompt is not allowed here."
    assert await audit(database) == [("alice", None, "prompt", "adult_content", sha256(ADULT))]


async def test_adult_words_in_a_negative_prompt_exclude_and_pass(database: Database):
    async with policy(database) as made:
        await made.check("alice", prompt="woman walking in park", negative_prompt="nude, porn, sex, nsfw")


async def test_the_endpoint_judges_the_prompt_alone_and_what_is_already_refused_never_reaches_it(
    database: Database, endpoint: ScriptedModeration
):
    endpoint.judge()
    async with policy(database, moderation_url=endpoint.url, moderation_key="sk-1", moderation_model="omni") as made:
        await refusal_of(made, BELOW_THE_FLOOR)
        await made.check("alice", prompt="a fox", negative_prompt="blurry")

    assert endpoint.asked == [{"input": "a fox", "model": "omni"}]
    assert endpoint.keys == ["Bearer sk-1"]


async def test_what_the_endpoint_flags_is_refused_by_the_same_message(database: Database, endpoint: ScriptedModeration):
    endpoint.judge(True, "violence", "hate")
    endpoint.judge(True)
    async with policy(database, moderation_url=endpoint.url) as made:
        error = await refusal_of(made)
        await refusal_of(made)

    assert error.message == "The prompt is not allowed here."
    assert await audit(database) == [
        ("alice", None, "prompt", "moderation: hate, violence", sha256("a fox")),
        ("alice", None, "prompt", "moderation: flagged", sha256("a fox")),
    ]


@pytest.mark.parametrize(
    ("allowed", "flagged", "categories", "passes"),
    [
        (False, True, ["sexual"], False),
        (True, True, ["sexual"], True),
        (True, True, ["sexual", "violence"], False),
        (True, True, ["violence"], False),
        (True, True, [], False),
        (True, True, ["sexual", "sexual/minors"], False),
        (True, True, ["sexual/minors"], False),
        (True, False, ["sexual/minors"], False),
        (False, False, ["sexual/minors"], False),
        (False, False, ["sexual"], True),
        (False, False, [], True),
    ],
)
async def test_where_adult_content_is_allowed_a_flag_for_it_alone_is_let_through(
    database: Database, endpoint: ScriptedModeration, allowed: bool, flagged: bool, categories: list[str], passes: bool
):
    endpoint.judge(flagged, *categories)
    async with policy(database, moderation_url=endpoint.url, allow_adult_content=allowed) as made:
        if passes:
            await made.check("alice", prompt="a fox", negative_prompt="")
        else:
            await refusal_of(made)


async def test_nothing_passes_without_the_endpoint(database: Database, endpoint: ScriptedModeration):
    endpoint.answer(401)
    async with policy(database, moderation_url=endpoint.url) as made:
        with pytest.raises(ModerationUnavailable):
            await made.check("alice", prompt="a fox", negative_prompt="")

    assert await audit(database) == []


async def test_a_name_of_a_category_that_can_t_be_stored_is_left_out(database: Database, endpoint: ScriptedModeration):
    endpoint.judge(True, "a\x00b", "c" * 500)
    async with policy(database, moderation_url=endpoint.url) as made:
        await refusal_of(made)

    [(_, _, _, rule, _)] = await audit(database)
    assert rule == f"moderation: {'c' * 500}"[:200]


async def test_an_enhanced_prompt_is_judged_alike_and_recorded_with_its_job(
    database: Database, endpoint: ScriptedModeration
):
    job_id = uuid4()
    endpoint.judge()
    endpoint.judge(True, "violence")
    async with policy(database, moderation_url=endpoint.url) as made:
        await made.check_enhanced("alice", job_id, prompt="a red fox in snow")
        for prompt, negative in ((BELOW_THE_FLOOR, ""), (ADULT, ""), ("a fox", "")):
            with pytest.raises(PromptRefused, match="The enhanced prompt is not allowed here"):
                await made.check_enhanced("alice", job_id, prompt=prompt, negative_prompt=negative)

    assert await audit(database) == [
        ("alice", job_id, "enhanced_prompt", "minor_explicit", sha256(BELOW_THE_FLOOR)),
        ("alice", job_id, "enhanced_prompt", "adult_content", sha256(ADULT)),
        ("alice", job_id, "enhanced_prompt", "moderation: violence", sha256("a fox")),
    ]


async def test_a_negative_prompt_is_looked_at_again_beside_the_enhanced_prompt(database: Database):
    async with policy(database, allow_adult_content=True) as made:
        with pytest.raises(PromptRefused):
            await made.check_enhanced("alice", uuid4(), prompt=ADULT, negative_prompt="adult")


async def test_a_refusal_that_can_t_be_recorded_lets_nothing_through():
    class Away:
        async def execute(self, *_: object) -> None:
            raise DatabaseUnavailable("The database is out of reach.")

    async with policy(Away()) as made:  # type: ignore[arg-type]
        with pytest.raises(DatabaseUnavailable):
            await made.check("alice", prompt=BELOW_THE_FLOOR, negative_prompt="")


async def test_neither_prompts_nor_terms_stand_in_a_log(
    database: Database, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    with caplog.at_level(logging.DEBUG):
        async with policy(database) as made:
            await refusal_of(made, f"{BELOW_THE_FLOOR} in the attic")

    said = caplog.text + "".join(capfd.readouterr())
    assert "a prompt is refused" in said
    for word in ("naked", "child", "attic"):
        assert word not in said


# at the fronts


@pytest.fixture
async def open_front(dsn: str, tmp_path, database: Database) -> Callable[..., AbstractAsyncContextManager[Front]]:
    @asynccontextmanager
    async def opened(**values: object) -> AsyncIterator[Front]:
        # Nothing listens there, so that jobs stay.
        stated = {"database_url": dsn, "renderers_sdxl": "127.0.0.1:1", "grpc_port": 0, "metrics_port": 0, **values}
        settings = fronts.settings(**stated)
        store = LocalStore(tmp_path, UrlSigner("a secret of the tests, for signed URLs", fronts.PUBLIC_URL))
        async with open_gateway(settings, store) as gateway:
            yield Front.over(gateway, catalog=CATALOG, store=store, settings=settings)

    return opened


async def untouched(bench: Bench) -> bool:
    """Whether nobody has a job, credits, a key or an account."""
    tables = ("jobs", "queue", "accounts", "credit_ledger", "idempotency_keys", "job_events")
    return not sum([await bench.value(f"SELECT count(*) FROM {table}") for table in tables])


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"prompt": BELOW_THE_FLOOR}, "metadata.prompt"),
        ({"prompt": ADULT}, "metadata.prompt"),
        ({"prompt": "a fox", "negative_prompt": BELOW_THE_FLOOR}, "metadata.negative_prompt"),
    ],
)
async def test_rest_refuses_with_400_and_only_the_audit_knows(open_front, bench: Bench, metadata, field):
    async with open_front() as front:
        transport = httpx.ASGITransport(create_rest_app(front), raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {fronts.token('alice')}", "Idempotency-Key": "k"}
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
            reply = await client.post("/api/queue-job", json={"jobType": "sdxl_image_fast", "metadata": metadata})

    assert reply.status_code == 400
    body = reply.json()
    assert body["success"] is False
    assert "not allowed here" in body["error"]
    assert not body.get("retryable")
    assert field in reply.text
    for telling in ("minor", "explicit", "adult", "rule", *BELOW_THE_FLOOR.split()):
        assert telling not in reply.text
    assert await untouched(bench)
    assert await bench.value("SELECT count(*) FROM policy_audit") == 1


async def test_grpc_refuses_with_a_reason_and_only_the_audit_knows(open_front, bench: Bench):
    async with open_front() as front:
        server = Server(front.settings, name="gateway", require_service_token=False)
        add_services(server, front)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                request = jobs_pb2.CreateJobRequest(job_type="sdxl_image_fast", prompt=BELOW_THE_FLOOR)
                token = (("authorization", f"Bearer {fronts.token('alice')}"),)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await jobs_pb2_grpc.JobServiceStub(channel).CreateJob(request, metadata=token)
        finally:
            await server.drain()

    error = parse(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_REFUSED")
    assert error.message == "The prompt is not allowed here."
    assert [violation.field for violation in error.fields] == ["prompt"]
    assert await untouched(bench)
    assert await bench.value("SELECT count(*) FROM policy_audit") == 1


async def test_what_was_accepted_under_a_key_stays_so_whatever_the_policy_says_now(
    open_front, bench: Bench, endpoint: ScriptedModeration
):
    draft = JobDraft(job_type="sdxl_image_fast", metadata={"prompt": ADULT}, idempotency_key="k")
    async with open_front(allow_adult_content=True) as front:
        first, _ = await front.create_job(draft, "alice")
    async with open_front() as front:
        stricter, _ = await front.create_job(draft, "alice")
        with pytest.raises(PromptRefused):
            await front.create_job(draft, "bob")
    endpoint.answer(401)
    endpoint.answer(401)
    async with open_front(allow_adult_content=True, moderation_url=endpoint.url) as front:
        blind, _ = await front.create_job(draft, "alice")
        with pytest.raises(ModerationUnavailable):
            await front.create_job(draft, "bob")

    assert first.job.id == stricter.job.id == blind.job.id
    assert await bench.value("SELECT count(*) FROM jobs") == 1


async def test_a_job_that_a_renderer_refuses_fails_at_once_and_costs_nothing(gateway: Gateway, bench: Bench):
    job = painted_job(prompt=BELOW_THE_FLOOR)  # as if this gateway's floor were another one
    await gateway.accept(job)

    event = await ended(gateway, job.id)

    assert event.state == JobState.FAILED
    assert event.error_message == "The renderer refused the job: The prompt is not allowed here."
    assert await bench.value("SELECT array_agg(reason) FROM attempts") == ["PROMPT_REFUSED"]
    assert await bench.value("SELECT reserved FROM accounts") == 0
    assert await bench.value("SELECT count(*) FROM credit_ledger WHERE entry = 'settle' AND amount > 0") == 0


async def test_everything_else_goes_on_while_a_long_prompt_is_judged(database, monkeypatch):
    judging, go_on = threading.Event(), threading.Event()

    def judge(_: str) -> str | None:
        judging.set()
        return None if go_on.wait(10) else "nobody else had a turn"

    monkeypatch.setattr(module, "floor_violation", judge)
    async with policy(database) as made:
        checking = asyncio.create_task(made.check("alice", prompt="a fox " * 100, negative_prompt=""))
        while not judging.is_set():  # there is no event to wait for
            await asyncio.sleep(0.01)
        go_on.set()
        await checking
