"""One way to write what can be written in many: width, case, accents, invisible characters and look-alike letters."""

from __future__ import annotations

import unicodedata

_DROPPED_CATEGORIES = frozenset({"Mn", "Me", "Cf"})
"""Combining marks, enclosing marks, and what is not seen: zero-width characters, soft hyphens, tags."""

_BLANK_LETTERS = "\u115f\u1160\u2800"
"""Letters and signs that show nothing, though Unicode does not class them so."""

_LOOK_ALIKES = {
    "a": "аαɑᴀɐɒ",
    "ae": "æ",
    "b": "вьβʙ",
    "c": "сᴄɔ",
    "d": "ԁδđᴅð",
    "e": "еэεᴇǝəɛ",
    "f": "ƒꜰ",
    "g": "ɡɢց",
    "h": "һнħʜɥհ",
    "i": "іιıɩɪ",
    "j": "јᴊ",
    "k": "кκᴋʞ",
    "l": "ӏλłʟ",
    "m": "мᴍɯ",
    "n": "пηπɴո",
    "o": "оοσøᴏօ",
    "oe": "œ",
    "p": "рρᴘ",
    "q": "ԛզ",
    "r": "гяʀɹ",
    "s": "ѕꜱʃ",
    "t": "тτŧᴛʇ",
    "u": "иμυᴜսʊ",
    "v": "ѵνᴠʌ",
    "w": "ԝшωᴡ",
    "x": "хχ",
    "y": "уγʏʎ",
    "z": "ζᴢ",
}
"""Letters of other alphabets, and of phonetic ones, under the letters that they are read as; lower case, no accents."""

_SIMPLIFIED = {
    "兒": "儿", "歲": "岁", "歳": "岁", "學": "学", "體": "体", "蘿": "萝", "處": "处", "愛": "爱", "陰": "阴",
    "莖": "茎", "強": "强", "姦": "奸", "輪": "轮", "褻": "亵", "嬰": "婴", "寶": "宝", "滿": "满", "內": "内",
    "褲": "裤", "誘": "诱", "顏": "颜", "戀": "恋", "孌": "娈", "級": "级", "園": "园", "脫": "脱", "亂": "乱",
    "倫": "伦", "濕": "湿", "沒": "没", "點": "点", "頭": "头", "過": "过", "著": "着", "齡": "龄", "絲": "丝",
    "襪": "袜", "為": "为", "調": "调", "陽": "阳", "慾": "欲", "賣": "卖", "動": "动", "畫": "画",
    "飼": "饲", "餵": "喂", "兩": "两", "週": "周", "無": "无", "臥": "卧", "騷": "骚", "蕩": "荡", "雞": "鸡",
    "張": "张", "開": "开", "雙": "双", "豐": "丰", "勢": "势", "視": "视", "裝": "装", "掛": "挂", "姪": "侄", "孫": "孙",
    "繼": "继", "養": "养", "臉": "脸", "溝": "沟", "貨": "货", "婦": "妇", "電": "电", "頻": "频", "發": "发", "個": "个",
    "擾": "扰", "還": "还", "風": "风", "態": "态",
}  # fmt: skip
"""The traditional characters of our terms, and the simplified ones that the terms are written in."""

_PICTURES = {"👶": " baby ", "🧒": " child ", "👧": " little girl ", "👦": " little boy "}
"""Text encoders know these as well as the words."""

# Letters on signs that no normal form takes off (negative circles and squares, flags' letters) or not cleanly (brackets).
_SIGNS = {first + place: chr(ord("a") + place) for first in (0x249C, 0x1F150, 0x1F170, 0x1F1E6) for place in range(26)}

_TABLE: dict[int, str | None] = {
    **{ord(blank): None for blank in _BLANK_LETTERS},
    **{ord(letter): latin for latin, letters in _LOOK_ALIKES.items() for letter in letters},
    **{ord(letter): simple for letter, simple in _SIMPLIFIED.items()},
    **{ord(picture): words for picture, words in _PICTURES.items()},
}


def fold(text: str) -> str:
    """Return the text in lower case, and in Latin letters and simplified Chinese as far as it looks like them."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).casefold()
    apart = unicodedata.normalize("NFKD", text)
    seen = "".join(letter for letter in apart if unicodedata.category(letter) not in _DROPPED_CATEGORIES)
    return seen.translate(_TABLE)
