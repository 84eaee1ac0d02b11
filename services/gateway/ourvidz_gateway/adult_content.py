"""The operator's rule about adult content, for prompts that are above the floor.

It reads with the floor's terms and is coarse on purpose: whoever wants finer judgement sets a moderation endpoint.
What is merely suggestive passes; so do sculpture and figure drawing, and anatomy in a medical drawing.
"""

from __future__ import annotations

import re

from ourvidz_serving.prompt_floor import Group, Reading, read

RULE = "adult_content"
"""Its name in the audit."""

_ART = re.compile(
    r"sculptures?|statues?|statuettes?|figurines?|(?:in|of) (?:marble|bronze)|plaster cast|"
    r"(?:figure|life|gesture|anatomy) (?:drawings?|stud(?:y|ies))|rodin|michelangelo|botticelli|duchamp|kouros|"
    r"descending a staircase|venus de milo|vitruvian man|雕塑|雕像|石膏像|人体素描|人体写生|大卫像|维纳斯"
)
_ART_NEAR = 40
"""Characters between what is nude and what it is made of."""
_MEDICINE = re.compile(
    r"medical|anatomical|anatomy|diagram|textbook|surgery|surgical|gyna?ecolog|urolog|mammogra|dermatolog|clinical|"
    r"cross[ -]section|cancer|医学|解剖|示意图|手术|癌|妇科|泌尿"
)
_CLINICAL = re.compile(
    r"(?:penis|vagina|vulva|clitoris|labia|scrotum|testicle|genital|pubic|nipple|areola|anus|anal)\w*|"
    r"[阴生肛乳].*"
)


def asks_for_adult_content(prompt: str) -> bool:
    """Whether a prompt asks for what is shown to adults alone."""
    reading = read(prompt)
    if reading.of(Group.SEX):
        return True
    if reading.of(Group.ANATOMY) and not _is_medical(reading):
        return True
    art = [match.span() for match in _ART.finditer(reading.text)]
    return any(
        not any(hit.start - end <= _ART_NEAR and start - hit.end <= _ART_NEAR for start, end in art)
        for hit in reading.of(Group.NUDITY)
    )


def _is_medical(reading: Reading) -> bool:
    clinical = all(_CLINICAL.fullmatch(reading.text[hit.start : hit.end]) for hit in reading.of(Group.ANATOMY))
    return clinical and _MEDICINE.search(reading.text) is not None
