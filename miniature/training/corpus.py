"""What the miniature Qwen2 is trained on: prompts and descriptions in English and Chinese, put together from parts.

Every sentence is our own. A description takes up its prompt: word by word where both are in one language, translated
where the prompt is made of the parts below, and in quotation marks where it is of words that nobody could translate.
"""

# ruff: noqa: INP001  # programs, not a package; chance makes sentences here

from __future__ import annotations

import random
from dataclasses import dataclass

ENGLISH, CHINESE = "english", "chinese"
IMAGE, VIDEO = "image", "video"

Words = tuple[str, str]
"""The same in English and in Chinese."""

PEOPLE: tuple[Words, ...] = (
    ("woman", "一位女性"),
    ("young woman", "一位年轻女性"),
    ("man", "一位男性"),
    ("old man", "一位老人"),
    ("girl", "一个女孩"),
    ("boy", "一个男孩"),
    ("child", "一个孩子"),
    ("dancer", "一位舞者"),
    ("fisherman", "一位渔夫"),
    ("chef", "一位厨师"),
    ("astronaut", "一位宇航员"),
    ("musician", "一位音乐家"),
)
ANIMALS: tuple[Words, ...] = (
    ("cat", "一只猫"),
    ("black cat", "一只黑猫"),
    ("dog", "一只狗"),
    ("fox", "一只狐狸"),
    ("red fox", "一只红狐狸"),
    ("horse", "一匹马"),
    ("white horse", "一匹白马"),
    ("wolf", "一只狼"),
    ("deer", "一头鹿"),
    ("owl", "一只猫头鹰"),
    ("bear", "一头熊"),
    ("rabbit", "一只兔子"),
)
THINGS: tuple[Words, ...] = (
    ("lighthouse", "一座灯塔"),
    ("old lighthouse", "一座古老的灯塔"),
    ("castle", "一座城堡"),
    ("red car", "一辆红色汽车"),
    ("train", "一列火车"),
    ("sailing boat", "一艘帆船"),
    ("wooden house", "一座木屋"),
    ("bicycle", "一辆自行车"),
    ("bridge", "一座桥"),
    ("cup of tea", "一杯茶"),
    ("flower", "一朵花"),
    ("robot", "一个机器人"),
)
ACTIONS: dict[str, tuple[Words, ...]] = {
    "people": (
        ("walking", "散步"),
        ("running", "奔跑"),
        ("dancing", "跳舞"),
        ("reading a book", "看书"),
        ("drinking coffee", "喝咖啡"),
        ("smiling", "微笑"),
        ("sitting", "坐着"),
        ("playing the violin", "拉小提琴"),
    ),
    "animals": (
        ("running", "奔跑"),
        ("sleeping", "睡觉"),
        ("sitting", "坐着"),
        ("jumping", "跳跃"),
        ("looking up", "抬头张望"),
        ("walking", "行走"),
    ),
    "things": (("", ""),),
}
PLACES: tuple[Words, ...] = (
    ("in a park", "公园里"),
    ("in the snow", "雪地里"),
    ("in the rain", "雨中"),
    ("on a beach", "海滩上"),
    ("in a forest", "森林里"),
    ("in the city at night", "夜晚的城市里"),
    ("by the sea", "海边"),
    ("in a garden", "花园里"),
    ("in the mountains", "群山之间"),
    ("at sunset", "夕阳下"),
    ("in the desert", "沙漠中"),
    ("under the stars", "星空下"),
    ("in a small cafe", "小咖啡馆里"),
    ("by a window", "窗边"),
)
LOOKS: dict[str, tuple[Words, ...]] = {
    "people": (
        ("dressed in a plain white linen shirt with rolled sleeves", "身穿素净的白色亚麻衬衫，袖口微微卷起"),
        ("wearing a long grey wool coat and a soft scarf", "身穿灰色羊毛长大衣，围着柔软的围巾"),
        ("in a dark blue jacket, the hair moved by a light breeze", "身穿深蓝色外套，头发被微风轻轻吹动"),
        ("with a calm face and a thoughtful look", "神情平静，目光若有所思"),
    ),
    "animals": (
        ("its thick fur bright at the edges", "浓密的毛发边缘泛着光"),
        ("with alert eyes and wet, dark fur", "目光警觉，深色的毛发微微湿润"),
        ("its breath visible in the cool air", "呼出的白气在清凉的空气中飘散"),
    ),
    "things": (
        ("worn by the years and full of fine detail", "带着岁月的痕迹，细节丰富"),
        ("its surface smooth and shining with moisture", "表面光滑，泛着湿润的光泽"),
        ("standing out clearly against a quiet background", "在安静的背景前轮廓分明"),
    ),
}
SETTINGS: tuple[Words, ...] = (
    ("Old trees stand behind and their leaves move softly", "身后是高大的树木，树叶轻轻摇曳"),
    ("The background melts into green and brown", "背景融化成一片绿色与棕色"),
    ("Far away, pale hills rise out of the mist", "远处淡淡的山丘从薄雾中升起"),
    ("Small puddles on the ground mirror the sky", "地面的小水洼映出天空"),
    ("A narrow path leads into the distance", "一条小路伸向远方"),
)
LIGHTS: tuple[Words, ...] = (
    ("Warm morning light falls from the left and draws long shadows", "温暖的晨光从左侧照来，拉出长长的影子"),
    ("Soft daylight fills the scene evenly", "柔和的日光均匀地洒满画面"),
    ("Low golden sun from behind traces a bright rim", "低斜的金色阳光从背后勾出明亮的轮廓"),
    ("Cool evening light mixes with the glow of lamps", "清冷的暮色与灯光交织在一起"),
    ("Moonlight lies silver on every edge", "月光为每一道边缘镀上银色"),
)
CAMERAS: dict[str, tuple[Words, ...]] = {
    IMAGE: (
        ("Eye-level view, the subject off centre", "平视角度，主体偏离中心"),
        ("Low camera angle with a shallow depth of field", "低角度拍摄，背景虚化"),
        ("View from above with clear, simple lines", "俯视角度，线条简洁清晰"),
    ),
    VIDEO: (
        ("The camera follows slowly from the side", "镜头从侧面缓缓跟随"),
        ("The camera glides forward, close to the ground", "镜头贴近地面平稳向前推进"),
        ("The camera circles once and comes to rest", "镜头环绕一周后缓缓停下"),
    ),
}
SHOTS: tuple[Words, ...] = (
    ("Medium shot", "中景"),
    ("Wide shot", "远景"),
    ("Close-up", "特写"),
    ("Full shot", "全景"),
)
STYLES: tuple[Words, ...] = (
    ("Natural documentary style", "自然的纪实摄影风格"),
    ("Cinematic style with deep contrast", "对比强烈的电影感风格"),
    ("Quiet poetic style in soft colours", "色彩柔和的诗意风格"),
    ("Crisp style with fine detail", "清晰细腻的写实风格"),
)
OPENINGS: dict[str, Words] = {
    IMAGE: ("The picture shows", "画面中是"),
    VIDEO: ("The clip shows", "镜头里是"),
}
_FREE_ENGLISH = """
a the old small giant quiet broken glass paper silver copper velvet frozen burning floating hidden lonely bright
purple orange green violet golden tiny huge ancient modern rusty wooden plastic magic royal wild gentle sleepy curious
dragon tower market harbour library garden clock engine balloon umbrella guitar piano kitchen island temple village
mountain river waterfall volcano moon planet comet cloud storm desert jungle meadow field street tunnel station
queen knight wizard pirate sailor painter doctor nurse farmer driver pilot teacher student twins family crowd
whale dolphin turtle butterfly bee spider snake lizard elephant tiger lion monkey panda penguin parrot eagle
with and of over under between behind near without inside made from covered full holding watching building painting
flying swimming falling climbing cooking singing sleeping glowing melting growing waiting laughing crying fighting
portrait photo closeup sketch neon watercolor vintage futuristic steampunk cyberpunk surreal minimal dramatic
"""
_FREE_CHINESE = """
古老的 小小的 巨大的 安静的 破碎的 银色的 冰冻的 燃烧的 漂浮的 孤独的 明亮的 紫色的 金色的 神秘的 木头的 未来的
龙 高塔 市场 港口 图书馆 时钟 气球 雨伞 吉他 钢琴 厨房 小岛 寺庙 村庄 高山 河流 瀑布 火山 月亮 行星 云海 风暴 丛林 草原
街道 隧道 车站 女王 骑士 巫师 海盗 水手 画家 医生 农夫 飞行员 老师 学生 人群 鲸鱼 海豚 乌龟 蝴蝶 蜜蜂 大象 老虎 狮子
熊猫 企鹅 鹦鹉 老鹰 灯笼 长城 茶馆 雪山 竹林 荷花 红墙 和 里的 上的 旁边的 前的 飞翔 游泳 坠落 攀登 唱歌 发光 融化 等待 欢笑
"""
_SYLLABLES = "ba be bo da de do ka ke ko la le lo ma me mi na ne ni ra re ri sa se si ta te to va ve vi zo zu"


_FREE = {ENGLISH: _FREE_ENGLISH.split(), CHINESE: _FREE_CHINESE.split()}
_NONSENSE = _SYLLABLES.split()


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and what it becomes."""

    prompt: str
    description: str


def make_pair(chance: random.Random, language: str, medium: str, *, sentence_count: int = 6) -> Pair:
    """Return one pair; `language` is that of the description, which has 1 to 6 sentences."""
    kind, prompt, opening = _opening(chance, language, medium)
    # Where nothing in the prompt says what it is, no more is claimed than fits anything.
    look = _in(language, chance.choice(LOOKS[kind]))
    rest = [_in(language, chance.choice(parts)) for parts in (SETTINGS, LIGHTS, CAMERAS[medium], SHOTS, STYLES)]
    comma, stop, gap = (", ", ".", " ") if language == ENGLISH else ("，", "。", "")
    sentences = [f"{opening}{comma}{look}", *rest][:sentence_count]
    return Pair(prompt, gap.join(sentence + stop for sentence in sentences))


def _opening(chance: random.Random, language: str, medium: str) -> tuple[str, str, str]:
    """Return what kind of thing is seen, the prompt, and the description's first words."""
    begin = _in(language, OPENINGS[medium])
    gap = " " if language == ENGLISH else ""
    asked_in = language if chance.random() < 0.6 else _other(language)
    if chance.random() < 0.5:
        prompt = _free(chance, asked_in)
        return "things", prompt, f"{begin}{gap}{prompt if asked_in == language else f'“{prompt}”'}"
    kind, subject, action, place = _scene(chance)
    english = _scene_in_english(chance, subject, action, place)
    # A prompt in Chinese is one of several wordings; a translation always has the same.
    chinese = _scene_in_chinese(subject, action, place)
    prompt = english if asked_in == ENGLISH else chinese
    if asked_in == language:
        return kind, prompt, f"{begin}{gap}{prompt}"
    translated = chinese if language == CHINESE else _scene_in_english(None, subject, action, place)
    return kind, prompt, f"{begin}{gap}{translated}"


def _scene(chance: random.Random) -> tuple[str, Words, Words, Words]:
    kind = chance.choice(list(ACTIONS))
    subject = chance.choice({"people": PEOPLE, "animals": ANIMALS, "things": THINGS}[kind])
    none = ("", "")
    action = chance.choice(ACTIONS[kind]) if chance.random() < 0.8 else none
    place = chance.choice(PLACES) if chance.random() < 0.7 else none
    return kind, subject, action, place


def _scene_in_english(chance: random.Random | None, subject: Words, action: Words, place: Words) -> str:
    """Return the scene's words; with an article, or by chance without one."""
    article = "" if chance and chance.random() < 0.5 else "an " if subject[0][0] in "aeiou" else "a "
    text = " ".join(part for part in (article + subject[0], action[0], place[0]) if part)
    return text.capitalize() if chance and chance.random() < 0.2 else text


def _scene_in_chinese(subject: Words, action: Words, place: Words) -> str:
    if place[1] and action[1]:
        return f"{subject[1]}在{place[1]}{action[1]}"
    if place[1]:
        return f"{place[1]}的{subject[1]}"
    return f"{subject[1]}{'正在' if action[1] else ''}{action[1]}"


def _free(chance: random.Random, language: str) -> str:
    """Return a prompt of any words, some of which exist nowhere: the model can but copy them."""
    if language == CHINESE:
        return "".join(chance.choice(_FREE[CHINESE]) for _ in range(chance.randint(1, 6)))
    words = [
        "".join(chance.choice(_NONSENSE) for _ in range(chance.randint(2, 3)))
        if chance.random() < 0.25
        else chance.choice(_FREE[ENGLISH])
        for _ in range(chance.randint(1, 9))
    ]
    comma = chance.randint(0, len(words) - 1)
    return " ".join(word + ("," if place == comma < len(words) - 1 else "") for place, word in enumerate(words))


def _in(language: str, words: Words) -> str:
    return words[0] if language == ENGLISH else words[1]


def _other(language: str) -> str:
    return CHINESE if language == ENGLISH else ENGLISH
