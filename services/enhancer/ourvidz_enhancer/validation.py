"""What an enhance request must be like: the rules of `enhance.proto`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ourvidz.api.enhance.v1 import enhance_pb2
from ourvidz.rpc_status import FieldViolation
from ourvidz_enhancer.frame import on_one_line
from ourvidz_enhancer.language import language_of
from ourvidz_enhancer.task import MAX_TOKENS, EnhanceTask, Language, Medium
from ourvidz_serving.errors import InvalidRequest, PromptRefused
from ourvidz_serving.prompt_floor import floor_violation

MAX_CHARACTERS = 10_000

_MEDIA = {
    enhance_pb2.MEDIUM_UNSPECIFIED: Medium.IMAGE,
    enhance_pb2.MEDIUM_IMAGE: Medium.IMAGE,
    enhance_pb2.MEDIUM_VIDEO: Medium.VIDEO,
}
_LANGUAGES = {
    enhance_pb2.LANGUAGE_ENGLISH: Language.ENGLISH,
    enhance_pb2.LANGUAGE_CHINESE: Language.CHINESE,
}


def read_request(request: enhance_pb2.EnhanceRequest) -> EnhanceTask:
    """Return the task that a request asks for, defaults filled in.

    Raises `InvalidRequest`, naming every bad field, and `PromptRefused` for a prompt below the prompt policy's floor.
    """
    prompt = request.prompt.strip()
    token_count = request.max_token_count if request.HasField("max_token_count") else MAX_TOKENS
    character_count = request.max_character_count if request.HasField("max_character_count") else MAX_CHARACTERS
    violations = [
        *_prompt(prompt),
        *_enum("medium", request.medium, enhance_pb2.Medium.items()),
        *_enum("language", request.language, enhance_pb2.Language.items()),
        *_range("max_token_count", token_count, 16, MAX_TOKENS),
        *_range("max_character_count", character_count, 64, MAX_CHARACTERS),
    ]
    if violations:
        first, more = violations[0], len(violations) - 1
        message = f"{first.field}: {first.description}" + (f" (and {more} more)" if more else "")
        raise InvalidRequest(message, violations=violations)
    if floor_violation(prompt):
        raise PromptRefused("The prompt is not allowed here.", field="prompt")
    return EnhanceTask(
        prompt=prompt,
        medium=_MEDIA[request.medium],
        language=_LANGUAGES.get(request.language) or language_of(prompt),
        max_token_count=token_count,
        max_character_count=character_count,
        seed=request.seed if request.HasField("seed") else None,
    )


def _prompt(prompt: str) -> Iterator[FieldViolation]:
    # Of control characters alone nothing would be left.
    if not on_one_line(prompt) or len(prompt) > MAX_CHARACTERS:
        yield FieldViolation("prompt", "must be 1 to 10,000 characters")


def _range(field: str, value: int, low: int, high: int) -> Iterator[FieldViolation]:
    if not low <= value <= high:
        yield FieldViolation(field, f"must be {low} to {high}")


def _enum(field: str, value: int, items: Sequence[tuple[str, int]]) -> Iterator[FieldViolation]:
    # Enums are open in proto3: a number that no version of the contract names arrives as it is.
    if value not in [number for _, number in items]:
        yield FieldViolation(field, f"must be one of {', '.join(name for name, _ in items)}")
