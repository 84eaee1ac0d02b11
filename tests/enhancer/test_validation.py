"""What a request must be like, and what its defaults mean."""

from __future__ import annotations

import pytest

from ourvidz.api.enhance.v1 import enhance_pb2
from ourvidz_enhancer.task import EnhanceTask, Language, Medium
from ourvidz_enhancer.validation import read_request
from ourvidz_serving.errors import InvalidRequest, PromptRefused


def test_the_defaults_are_those_of_the_contract() -> None:
    assert read_request(enhance_pb2.EnhanceRequest(prompt=" a fox ")) == EnhanceTask(
        "a fox", Medium.IMAGE, Language.ENGLISH, max_token_count=512, max_character_count=10_000, seed=None
    )


def test_what_is_given_is_taken() -> None:
    request = enhance_pb2.EnhanceRequest(
        prompt="a fox",
        medium=enhance_pb2.MEDIUM_VIDEO,
        language=enhance_pb2.LANGUAGE_CHINESE,
        max_token_count=16,
        max_character_count=64,
        seed=0,
    )
    expected = EnhanceTask("a fox", Medium.VIDEO, Language.CHINESE, max_token_count=16, max_character_count=64, seed=0)
    assert read_request(request) == expected


def test_without_a_language_it_is_that_of_the_prompt() -> None:
    assert read_request(enhance_pb2.EnhanceRequest(prompt="雪中的狐狸")).language is Language.CHINESE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ""),
        ("prompt", " \n "),
        ("prompt", "\x00\x1b"),
        ("prompt", "x" * 10_001),
        ("medium", 9),
        ("language", 9),
        ("max_token_count", 0),
        ("max_token_count", 15),
        ("max_token_count", 513),
        ("max_character_count", 63),
        ("max_character_count", 10_001),
    ],
)
def test_a_bad_field_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_request(enhance_pb2.EnhanceRequest(**{"prompt": "a fox", field: value}))
    assert [violation.field for violation in raised.value.violations] == [field]


def test_all_bad_fields_are_named_at_once() -> None:
    with pytest.raises(InvalidRequest, match="and 2 more") as raised:
        read_request(enhance_pb2.EnhanceRequest(medium=7, max_token_count=1))
    assert [violation.field for violation in raised.value.violations] == ["prompt", "medium", "max_token_count"]


def test_the_longest_prompt_and_every_number_at_its_bounds_pass() -> None:
    request = enhance_pb2.EnhanceRequest(
        prompt="x" * 10_000, max_token_count=512, max_character_count=10_000, seed=2**32 - 1
    )
    assert read_request(request).seed == 2**32 - 1


def test_a_prompt_below_the_floor_is_refused() -> None:
    with pytest.raises(PromptRefused) as raised:
        read_request(enhance_pb2.EnhanceRequest(prompt="naked child"))
    assert [violation.field for violation in raised.value.violations] == ["prompt"]
