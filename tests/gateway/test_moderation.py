"""The moderation endpoint, over HTTP: what is asked, what is understood, and what becomes of outages."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from ourvidz_gateway.errors import ModerationUnavailable
from ourvidz_gateway.moderation import Moderation, Verdict
from support.scripted_moderation import ScriptedModeration, moderating

PROMPT = "a lighthouse at dawn"


@pytest.fixture
def endpoint() -> Iterator[ScriptedModeration]:
    with moderating() as endpoint:
        yield endpoint


@asynccontextmanager
async def asking(
    url: str, *, key: str | None = None, model: str | None = None, time_limit_s: float = 30
) -> AsyncIterator[Moderation]:
    moderation = Moderation(url, key=key, model=model, time_limit_s=time_limit_s)
    try:
        yield moderation
    finally:
        await moderation.close()


@pytest.fixture
async def moderation(endpoint: ScriptedModeration) -> AsyncIterator[Moderation]:
    async with asking(endpoint.url) as moderation:
        yield moderation


async def test_a_text_is_put_to_the_endpoint_in_openai_s_way(endpoint: ScriptedModeration):
    endpoint.judge()
    async with asking(endpoint.url, key="sk-1", model="omni") as moderation:
        verdict = await moderation.judge(PROMPT)

    assert verdict == Verdict(False, frozenset())
    assert endpoint.asked == [{"input": PROMPT, "model": "omni"}]
    assert endpoint.keys == ["Bearer sk-1"]


async def test_without_a_key_and_a_model_none_is_sent(endpoint: ScriptedModeration, moderation: Moderation):
    endpoint.judge()

    await moderation.judge(PROMPT)

    assert endpoint.asked == [{"input": PROMPT}]
    assert endpoint.keys == [None]


async def test_the_categories_that_hold_are_told(endpoint: ScriptedModeration, moderation: Moderation):
    endpoint.judge(True, "sexual", "violence/graphic")

    assert await moderation.judge(PROMPT) == Verdict(True, frozenset({"sexual", "violence/graphic"}))


async def test_one_connection_serves_many_questions(endpoint: ScriptedModeration, moderation: Moderation):
    endpoint.judge(times=3)
    for _ in range(3):
        await moderation.judge(PROMPT)

    assert len(set(endpoint.connections)) == 1


@pytest.mark.parametrize("status", [429, 408, 500, 502, 503])
async def test_what_can_pass_is_asked_again(endpoint: ScriptedModeration, moderation: Moderation, status: int):
    endpoint.answer(status)
    endpoint.answer(status)
    endpoint.judge(True)

    assert (await moderation.judge(PROMPT)).flagged
    assert len(endpoint.asked) == 3


async def test_a_connection_that_breaks_is_made_anew(endpoint: ScriptedModeration, moderation: Moderation):
    endpoint.hang_up()
    endpoint.judge()

    assert not (await moderation.judge(PROMPT)).flagged


async def test_an_endpoint_that_asks_for_patience_is_given_it(endpoint: ScriptedModeration, moderation: Moderation):
    endpoint.answer(429, Retry_After="1")
    endpoint.judge()

    assert not (await moderation.judge(PROMPT)).flagged


async def test_one_that_asks_for_more_than_there_is_is_not_asked_again(endpoint: ScriptedModeration):
    endpoint.answer(429, Retry_After="31")
    async with asking(endpoint.url) as moderation:
        with pytest.raises(ModerationUnavailable) as caught:
            await moderation.judge(PROMPT)

    assert caught.value.retry_after_s == 31
    assert len(endpoint.asked) == 1


async def test_one_that_never_answers_is_given_up(endpoint: ScriptedModeration):
    endpoint.stay_silent()
    async with asking(endpoint.url, time_limit_s=0.3) as moderation:
        with pytest.raises(ModerationUnavailable):
            await moderation.judge(PROMPT)


async def test_one_that_fails_for_long_is_given_up():
    with moderating() as endpoint:
        url = endpoint.url
    async with asking(url, time_limit_s=0.3) as moderation:
        with pytest.raises(ModerationUnavailable) as caught:
            await moderation.judge(PROMPT)

    assert caught.value.http_status == 503
    assert caught.value.retry_after_s == 5


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b"{}"),
        (401, b'{"error": "a lighthouse at dawn"}'),
        (404, b""),
        (302, b""),
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"null"),
        (200, b"{}"),
        (200, b'{"results": []}'),
        (200, b'{"results": [{}]}'),
        (200, b'{"results": [{"flagged": "no"}]}'),
        (200, b'{"results": [{"flagged": false, "categories": ["sexual"]}]}'),
        (200, b"\xff"),
    ],
)
async def test_an_answer_that_is_no_verdict_lets_nothing_pass(
    endpoint: ScriptedModeration, moderation: Moderation, status: int, body: bytes
):
    endpoint.answer(status, body)

    with pytest.raises(ModerationUnavailable):
        await moderation.judge(PROMPT)

    assert len(endpoint.asked) == 1


async def test_no_text_and_no_key_stands_in_a_log(
    endpoint: ScriptedModeration, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    endpoint.answer(500, PROMPT.encode())
    endpoint.answer(400, PROMPT.encode())
    async with asking(endpoint.url, key="sk-1") as moderation:
        with caplog.at_level(logging.DEBUG, "httpx"), pytest.raises(ModerationUnavailable) as caught:
            await moderation.judge(PROMPT)

    said = caplog.text + "".join(capfd.readouterr()) + caught.value.message
    assert "the moderation endpoint" in said
    assert PROMPT not in said
    assert "sk-1" not in said
