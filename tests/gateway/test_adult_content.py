"""What the operator's rule refuses while adult content is not allowed, and what it has nothing to do with."""

import pytest

from ourvidz_gateway.adult_content import asks_for_adult_content


@pytest.mark.parametrize(
    "prompt",
    [
        "nude woman on a bed",
        "naked man in the shower",
        "topless on the beach",
        "n u d e woman",
        "nudе woman",  # Cyrillic
        "n@ked",
        "porn",
        "hentai",
        "couple having sex",
        "woman, nipples, close-up",
        "woman with no clothes, oil painting",
        "nude woman, studio photo, a marble floor and a long corridor and, far behind, at the end of it, a statue",
        "medical diagram, porn",
        "anatomy, pussy",
        "erotic photograph",
        "nsfw",
        "裸体女人",
        "一对男女做爱",
        "色情图片",
    ],
)
def test_adult_content_is_recognised(prompt: str):
    assert asks_for_adult_content(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        # the reference's own
        "beautiful woman in garden",
        "woman walking in park",
        # fashion and everyday words
        "nude lipstick, macro photo",
        "model in nude tones, beige background",
        "nude high heels on marble",
        "a closet without clothes",
        "woman in a nude silk dress",
        "woman in lingerie, fashion catalogue",
        "bikini model on a surfboard",
        "sexy dress, evening light",
        "close-up of a woman's cleavage with a necklace",
        # animals, food, machines
        "naked mole rat",
        "a rooster, cock of the walk",
        "blue tits on a branch",
        "pussy willow in a vase",
        "naked cake with berries",
        "naked motorcycle in a garage",
        "horny toad in the desert",
        "anal fin of a goldfish, macro",
        # art
        "a nude by Rodin, bronze",
        "marble statue of a naked athlete",
        "charcoal figure drawing of a nude model",
        "Nude Descending a Staircase, cubism",
        "the Rape of the Sabine Women, baroque",
        "裸体雕像，大理石",
        # medicine
        "anatomical diagram of the vagina, medical textbook",
        "breast cancer awareness poster, pink ribbon",
        "medical illustration of the penis, cross-section",
        "医学示意图，阴道解剖",
        # phrases
        "Sex and the City, skyline",
        "same-sex wedding, confetti",
        "sex education poster",
        "summa cum laude diploma",
        "food porn, ramen, steam",
        "Essex, Sussex and Middlesex on a map",
        "portrait, no nsfw, no nudity",
        "a couple kissing in the rain",
        "性别平等海报",
        "女性爱好者俱乐部",
        "裸眼3D大屏幕",
        "裸妆少女，淡雅",
        "自然的裸色口红",
    ],
)
def test_other_prompts_pass(prompt: str):
    assert not asks_for_adult_content(prompt)
