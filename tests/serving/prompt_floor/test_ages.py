"""Ages under 18 in all the ways in which they are written, and what looks like one and is none."""

from __future__ import annotations

import pytest

from ourvidz_serving.prompt_floor.ages import ages_under_18
from ourvidz_serving.prompt_floor.folding import fold


def found(text: str) -> list[str]:
    folded = fold(text)
    return [folded[start:end] for start, end in ages_under_18(folded)]


@pytest.mark.parametrize(
    "text",
    [
        "15 year old", "a 15-year-old girl", "15yo", "15 y.o.", "15 y/o", "15 yrs old", "15 years of age", "15_year_old",
        "fifteen years old", "Seventeen-Year-Old", "fifteen yo", "16 to 17 years old", "15-25 year olds", "1 year old",
        "2.5 years old", "one hundred and 15 year olds", "15 year girl", "8 months old", "six-month-old infant",
        "aged 15", "Age: 14", "ages 5 to 12", "at the age of fifteen", "aged 15-25",
        "she is 15, smiling", "she's 16", "I'm 16 and tall", "a boy who looks fifteen.", "he turned 12",
        "girl, 15, in a garden", "girl (14)", "girl 15", "girl, 14 years, long hair", "girl (14 yrs)", "girl of thirteen",
        "woman, 14", "girl - 14", "girl, looks 15", "boy looking 12,", "14yr", "12yrs, smiling",
        "under 18", "younger than eighteen", "below the age of 18", "not yet 18",
        "5th grade", "fifth-grader", "12th graders", "grade 5 student", "year 9 pupil",
        "15岁", "１５歲", "十五岁", "十五六岁", "十七八岁", "五六岁", "两岁", "十几岁", "15周岁", "15~17岁", "六个月大", "3 岁",
        "未满18岁", "不到十八岁", "18岁以下", "三年级", "初三女生", "读高二", "3岁半",
        "a 15 year old cat girl",
    ],
)  # fmt: skip
def test_an_age_under_18_is_found(text: str) -> None:
    assert found(text)


@pytest.mark.parametrize(
    "text",
    [
        "18 year old", "21-year-old woman", "eighteen years old", "twenty-one year old", "forty five years old",
        "one hundred and five years old", "105 years old", "1,015 years old", "a 2015 year book", "18 to 25 years old",
        "(girl:1.3), masterpiece", "(girl: 1.25)", "(boy:0.5)", "girl, 30 years", "girl, 10 years ago", "she is 1.7 m tall",
        "aged 25", "age 40", "aged like 5", "middle-aged", "she is 15 feet tall", "she is 25", "girl, 4k, 8 cats",
        "12 year old scotch", "a 12-year-old single malt", "6-month-old puppies", "10 year old golden retriever", "15 year old car",
        "5 yoga poses", "under 18 minutes", "under 18%", "under 180", "first place", "grade 5 titanium", "year 2015",
        "十八岁", "二十五岁", "二十几岁", "一百一十岁", "几十岁", "18岁", "三岁的狗", "大年初一", "登高一呼", "高三层", "15楼",
    ],
)  # fmt: skip
def test_what_is_no_age_under_18_is_not(text: str) -> None:
    assert not found(text)
