"""Ages under 18 and school grades, in digits and in words, in English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Iterator

ADULT = 18
"""Years."""

_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand"
_NUMBERS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_GRADES = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"

# No quantifier stands inside of another one and all are bounded, so that a search takes linear time.
_GAP = r"[\s_./-]{0,3}"
_WORDS = "|".join(sorted(_NUMBERS, key=len, reverse=True))
_LARGER = rf"(?:{_TENS})(?:{_GAP}and)?{_GAP}"
# A number that goes on before or behind (1,015; 2015; twenty-one) is another number.
_NUMBER = (
    rf"(?<![\d.,])(?:\d{{1,3}}(?:[.,]\d{{1,2}})?(?!\d|\.\d)|(?:{_LARGER})?(?<![a-z])(?:{_WORDS})(?![a-z])|(?:{_TENS}))"
)
_NUMBER_OR_RANGE = rf"(?P<number>{_NUMBER})(?:{_GAP}(?:[-–—~]|to|or|and|through){_GAP}(?P<upper>{_NUMBER}))?"

_YEARS_OLD = re.compile(
    # 15 years old, 15-year-old, 15 yo, 15yr, 15 y/o, 15 to 17 years of age, 15 year girl, 8 months old
    rf"{_NUMBER_OR_RANGE}{_GAP}"
    rf"(?:(?:years?|yrs?|y){_GAP}(?:olds?|o(?![a-z])|of{_GAP}age|(?:girl|boy|female|male)(?![a-z]))|"
    r"yo(?![a-z])|(?<=\d)yrs?(?![a-z])|"
    rf"(?P<infant>(?:months?|weeks?|days?){_GAP}olds?))"
    r"(?P<thing>(?:[ -][a-z]{1,12}){0,2})"
)
_AGED = re.compile(
    # aged 15, ages 5 to 12, age: 15, at the age of fifteen
    rf"(?<![a-z])age[ds]?{_GAP}(?:of|about|around|only|is|:|=)?{_GAP}{_NUMBER_OR_RANGE}(?![\da-z])"
)
_SOMEBODY_IS = re.compile(
    # she is 15, a boy who looks fifteen; but not: she is 15 feet tall
    rf"(?<![a-z])(?:she|he|girl|boy|who|i|they)(?:\s|'|’){_GAP}(?:is|was|am|are|m|s|re|looks|turns|turned)\s"
    rf"(?:like\s|only\s|just\s|about\s|barely\s|almost\s)?(?P<number>{_NUMBER})"
    rf"(?=\s{{0,3}}(?:[,.;!?)\]]|$|(?:and|or|but|with|years?)(?![a-z])))"
)
_SOMEBODY = re.compile(
    # girl, 15, in a garden; girl (15); girl - 15; girl of 15; girl, 15 years; but not: (girl:1.3), which only weighs it
    rf"(?<![a-z])(?:girl|boy|female|male|woman|man|lady)[\s,(:–—-]{{1,3}}(?:of\s|looks?\s|looking\s)?(?!\d\.\d)(?P<number>{_NUMBER})"
    rf"(?=\s?(?:[,;)\]]|$)|{_GAP}(?:years?|yrs?)(?![a-z]|\s(?:ago|later)(?![a-z])))"
)
_UNDER_AGE = re.compile(
    rf"(?<![a-z])(?:under|below|younger{_GAP}than|less{_GAP}than|not{_GAP}yet){_GAP}(?:the{_GAP}age{_GAP}of{_GAP})?"
    rf"(?:1[5-8]|fifteen|sixteen|seventeen|eighteen)(?![\da-z:.,%$])"
    rf"(?!{_GAP}(?:percent|minutes?|seconds?|hours?|days|dollars|euros|feet|meters|metres|degrees|pieces|inches|kg|mb))",
)
_GRADE = re.compile(
    rf"(?<![a-z\d])(?:(?:1st|2nd|3rd|[4-9]th|1[0-2]th|{_GRADES}){_GAP}graders?|"
    rf"(?:1st|2nd|3rd|[4-9]th|1[0-2]th|{_GRADES}){_GAP}grade(?![a-z])|"
    rf"(?:grade|year){_GAP}(?:1[0-2]|[1-9]){_GAP}(?:student|pupil|girl|boy|kid|class|schooler))",
)

_THINGS = re.compile(
    "whisk(?:e?y|ies)|scotch|bourbon|rum|wine|port|cognac|brandy|malt|cheese|car|truck|bike|bicycle|boat|ship|building|"
    "castle|church|bridge|tower|tree|oak|pine|bonsai|forest|tradition|recipe|company|firm|computer|laptop|phone|camera|"
    "violin|guitar|piano|painting|statue|map|tomb|ruin|temple|dog|pupp(?:y|ie)|cat|kitten|horse|pon(?:y|ie)|foal|mare|stallion|cow|"
    "calf|bull|lamb|sheep|goat|pig|piglet|bird|parrot|eagle|hen|rooster|elephant|lion|tiger|bear|wolf|fox|labrador|"
    "golden retriever|german shepherd|siberian husky|maine coon|single malt|retriever|poodle|terrier|dachshund|corgi|"
    "beagle|husky|pug|tortoise|turtle|whale|dolphin|gorilla|glacier|galaxy|planet|fossil"
)
"""What may be younger than 18 and is nobody."""
_PEOPLE = frozenset(
    ("girl", "boy", "woman", "man", "child", "kid", "lady", "female", "male", "ears", "cosplay", "suit")
)
"""What, when it follows, makes somebody of a thing after all: a cat girl."""

_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_CHINESE_NUMBER = r"(?P<number>\d{1,3}|[零〇一二两三四五六七八九十百]{1,5}|几)"
_SUI = re.compile(
    rf"(?<![\d.百千万几数])(?:(?P<lower>\d{{1,2}})\s?[-–—~到至]\s?)?{_CHINESE_NUMBER}\s?(?:多|来|几|出头)?\s?"
    r"(?:个月大|(?:周|虚)?\s?岁)(?P<thing>半?大?的?[\u4e00-\u9fff]{0,3})"
)
_UNDER_SUI = re.compile(
    r"(?:未满|不满|不到|小于|低于|未及|没满|没到|还没到)\s?(?:1[0-8]|十[一二三四五六七八]?)\s?(?:周|虚)?\s?岁?|"
    r"(?:18|十八)\s?周?岁\s?(?:以下|之下|不到|未满)"
)
# 初一 is also the first day of a month, and 高一 stands inside of sayings.
_CHINESE_GRADE = re.compile(
    r"[一二三四五六1-6]\s?年级|(?<![年月])[初高][一二三](?=学|女|男|生|班|少)|[读念上][初高][一二三](?![低层楼])"
)
_CHINESE_THINGS = frozenset("狗犬猫马牛羊猪鸟树车酒房屋龟虎狮熊象狐")


def ages_under_18(text: str) -> Iterator[tuple[int, int]]:
    """Yield where a folded text names an age under 18 or a school grade."""
    for pattern in (_YEARS_OLD, _AGED, _SOMEBODY_IS, _SOMEBODY):
        for match in pattern.finditer(text):
            if _is_minor(match):
                yield match.span()
    for pattern in (_UNDER_AGE, _GRADE):
        yield from (match.span() for match in pattern.finditer(text))
    if not text.isascii():
        yield from _chinese_ages(text)


def _chinese_ages(text: str) -> Iterator[tuple[int, int]]:
    for match in _SUI.finditer(text):
        number = match["lower"] or match["number"]
        about_a_thing = any(thing in match["thing"] for thing in _CHINESE_THINGS)
        if _chinese_value(number) < ADULT and not about_a_thing:
            yield match.start(), match.start("thing")
    for pattern in (_UNDER_SUI, _CHINESE_GRADE):
        yield from (match.span() for match in pattern.finditer(text))


def _is_minor(match: re.Match[str]) -> bool:
    named = match.groupdict()
    ages = [_value(named[part]) for part in ("number", "upper") if named.get(part)]
    return (bool(named.get("infant")) or min(ages) < ADULT) and not _is_thing(named.get("thing") or "")


def _is_thing(following: str) -> bool:
    first, second, *_ = [*following.replace("-", " ").split(), "", ""]
    pair, one = f"{first} {second}".removesuffix("s"), first.removesuffix("s")
    return bool(_THINGS.fullmatch(pair) or _THINGS.fullmatch(one)) and second not in _PEOPLE


def _value(number: str) -> int:
    digits = re.match(r"\d+", number)
    if digits:
        return int(digits[0])
    word = re.split(r"[\s_./-]+", number)[-1]
    return ADULT if re.match(_TENS, number) else _NUMBERS.get(word, ADULT)


def _chinese_value(number: str) -> int:
    if number.isascii():
        return int(number)
    if "百" in number:
        return 100
    tens, ten, ones = number.rpartition("十")
    if ten:
        # 十五六: fifteen or sixteen.
        return (_DIGITS.get(tens[-1:], 0) if tens else 1) * 10 + _DIGITS.get(ones[:1], 0)
    value = 0
    for digit in number if len(number) != 2 or not _follows(number) else number[:1]:
        value = value * 10 + _DIGITS.get(digit, 0)
    return value


def _follows(number: str) -> bool:
    """Whether two digits are a guess, "五六" for five or six, and not a number."""
    return _DIGITS.get(number[1], 0) == _DIGITS.get(number[0], 0) + 1
