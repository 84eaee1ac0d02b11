"""What becomes of a job whose enhanced prompt may not be rendered, or can't be judged."""

import hashlib

import pytest

from ourvidz_gateway import enhances
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobState, Kind
from ourvidz_gateway.prompt_policy import PromptPolicy
from support.enhanced_jobs import ENHANCED, PROMPT, Open, PromptRefused, enhanced_job
from support.jobs import Bench, ended
from support.scripted_enhancer import ScriptedEnhancer, finished
from support.scripted_moderation import moderating


async def refusals(bench: Bench) -> list[tuple[object, ...]]:
    """What the prompt policy's audit holds of alice."""
    rows = await bench.database.fetch(
        "SELECT job_id, field, rule FROM policy_audit WHERE user_id = 'alice' ORDER BY id"
    )
    return [tuple(row) for row in rows]


async def all_credits_are_back(bench: Bench) -> bool:
    """Whether alice has what she was given, and nothing is held or spent."""
    row = await bench.database.fetchrow(
        """
        SELECT a.reserved = 0 AND a.open_jobs = 0 AND a.available =
               (SELECT sum(amount) FROM credit_ledger WHERE user_id = a.user_id AND entry = 'grant')
        FROM accounts a WHERE user_id = 'alice'
        """
    )
    return bool(row and row[0])


async def test_a_prompt_that_an_enhancer_refuses_fails_the_job_and_says_why(
    gateway: Gateway, enhancer: ScriptedEnhancer, bench: Bench
):
    enhancer.answer("A red", PromptRefused("This is not allowed here."))
    job = enhanced_job()
    await gateway.accept(job)

    event = await ended(gateway, job.id)

    assert event.state == JobState.FAILED
    assert event.error_message == "The enhancer refused the prompt: This is not allowed here."
    assert await bench.value("SELECT count(*) FROM attempts") == 1
    assert await refusals(bench) == [(job.id, "enhanced_prompt", "enhancer")]
    assert await bench.value("SELECT prompt_sha256 FROM policy_audit") == hashlib.sha256(PROMPT.encode()).digest()
    assert await all_credits_are_back(bench)


@pytest.mark.parametrize(
    ("text", "rule"), [("a naked child in the snow", "minor_explicit"), ("a nude woman in the snow", "adult_content")]
)
async def test_an_enhanced_prompt_that_breaks_a_rule_is_never_rendered_and_costs_nothing(
    gateway: Gateway, enhancer: ScriptedEnhancer, bench: Bench, text: str, rule: str
):
    enhancer.answer(finished(text))
    job = enhanced_job()
    await gateway.accept(job)

    event = await ended(gateway, job.id)

    assert event.state == JobState.FAILED
    assert event.error_message == "The enhanced prompt is not allowed here, so nothing was rendered."
    assert await bench.value("SELECT array_agg(stage || ' ' || reason) FROM attempts") == ["enhancing PROMPT_REFUSED"]
    assert await refusals(bench) == [(job.id, "enhanced_prompt", rule)]
    assert await all_credits_are_back(bench)
    assert text not in str(await gateway.get("alice", job.id))


async def test_an_enhanced_prompt_that_can_t_be_checked_waits_and_is_not_rendered(
    database, open_both: Open, enhancer: ScriptedEnhancer, bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(enhances, "CHECK_RETRY_S", 0.01)
    with moderating() as endpoint:
        endpoint.answer(401)
        endpoint.judge()
        for _ in range(2):
            enhancer.answer(finished(ENHANCED))
        async with open_both(moderation_url=endpoint.url) as gateway:
            job = enhanced_job()
            await gateway.accept(job)
            await bench.until("EXISTS (SELECT FROM attempts WHERE outcome = 'handed_back')")
            # The error asks for some seconds.
            await bench.database.execute("UPDATE queue SET ready_at = now()")
            gateway._dispatcher.wake(Kind.ENHANCER)
            assert (await ended(gateway, job.id)).state == JobState.COMPLETED

    assert [asked["input"] for asked in endpoint.asked] == [ENHANCED, ENHANCED]
    assert await bench.value("SELECT failures FROM jobs") == 0
    assert await bench.value(
        "SELECT array_agg(stage || ' ' || coalesce(reason, '') ORDER BY attempt) FROM attempts"
    ) == [
        "enhancing MODERATION_UNAVAILABLE",
        "enhancing ",
        "rendering ",
    ]


@pytest.mark.parametrize("refused", [finished("a naked child"), PromptRefused("This is not allowed here.")])
async def test_a_refusal_is_recorded_however_long_that_takes(
    gateway: Gateway,
    enhancer: ScriptedEnhancer,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    refused: object,
):
    monkeypatch.setattr(enhances, "CHECK_RETRY_S", 0.01)
    record, away = PromptPolicy.record, [True]

    async def record_later(*args, **values):
        if away:
            away.clear()
            raise DatabaseUnavailable("The database is out of reach.")
        await record(*args, **values)

    monkeypatch.setattr(PromptPolicy, "record", record_later)
    for _ in range(2):
        enhancer.answer(refused)
    job = enhanced_job()
    await gateway.accept(job)

    assert (await ended(gateway, job.id)).state == JobState.FAILED
    assert await bench.value("SELECT count(*) FROM policy_audit") == 1
    assert await bench.value("SELECT failures FROM jobs") == 1
