"""What the model is told to do: an operator's file, in TOML, that is read and checked once at the start.

The file has a table for each language, `english` and `chinese`, and in it one for each medium, `image` and `video`:

    [english]
    prompt_label = "Prompt:"
    description_label = "Description:"

    [english.image]
    instruction = "Each prompt is expanded into a description of a photograph."

    [[english.image.examples]]
    prompt = "a cup of tea"
    description = "A white porcelain cup of green tea stands on a weathered oak table …"

The labels begin the lines of the few-shot frame; a chat does without them.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ourvidz_enhancer.task import Language, Medium
from ourvidz_serving.settings import SettingsError

OneLine = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^\r\n]*$")]
"""Text of which each line break would be taken for a part of the frame."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Example(_Part):
    """A prompt and the description that it shall become."""

    prompt: OneLine
    description: OneLine


class Lesson(_Part):
    """What the model is told for one language and medium."""

    instruction: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    examples: Annotated[tuple[Example, ...], Field(min_length=1)]


class LanguagePart(_Part):
    """All that is written in one language."""

    prompt_label: OneLine
    description_label: OneLine
    image: Lesson
    video: Lesson

    def lesson(self, medium: Medium) -> Lesson:
        """Return the lesson for a medium."""
        return self.image if medium is Medium.IMAGE else self.video


class Instruction(_Part):
    """The whole file."""

    english: LanguagePart
    chinese: LanguagePart

    def part(self, language: Language) -> LanguagePart:
        """Return what is written in a language."""
        return self.english if language is Language.ENGLISH else self.chinese


def read_instruction(path: Path | None) -> Instruction:
    """Read an operator's file, or without one the file that comes with the enhancer.

    Raises `SettingsError` with one line that names the file and the first thing that is wrong with it.
    """
    name = str(path or "instruction.toml")
    try:
        source = path or files(__package__) / "instruction.toml"
        return Instruction.model_validate(tomllib.loads(source.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"the instruction file {name} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the instruction file {name} is not TOML in UTF-8: {error}") from error
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise SettingsError(f"the instruction file {name} is wrong at {place}: {problem['msg']}") from error
