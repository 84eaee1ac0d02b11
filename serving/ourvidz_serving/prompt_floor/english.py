"""The English terms of the floor, as sober as a filter can be.

A term stands for its plural in -s, too; `*` at its end for whatever follows. What people write in harmless prompts with
the same words stands in `EXCUSED`, with the harmless words in brackets.
"""

from __future__ import annotations

from ourvidz_serving.prompt_floor.lexicon import Group

TERMS = {
    Group.OUTRIGHT: "lolicon, shotacon, toddlercon, jailbait, csam, pthc, pedoporn",
    Group.MINOR: """
        child, children, kid, kiddo, kiddie, kiddy, toddler*, infant, newborn, preschool*, kindergart*,
        schoolgirl*, schoolboy*, schoolchild*, schoolkid*, school girl, school boy, school child, school children,
        school kid, schooler, elementary school*, primary school*, grade school*, gradeschool*, middle school*,
        middleschool*, junior high, high school*, highschool*,
        preteen*, pre teen, tween, tweenage*, teen, teenag*, adolescen*, pubescen*, prepubescen*, puberty,
        underage*, under age, under aged, minors, minor girl, minor boy, minor child, youngster,
        little girl, little boy, little kid, young girl, young boy, young kid, small girl, small boy, tiny girl,
        tiny boy, baby girl, baby boy, girl child, boy child, girl kid, sweet sixteen,
        loli, lolli girl, lolita, shota, shotas
    """,
    Group.PERHAPS_MINOR: """
        baby, babies, boy, daughter, stepdaughter, step daughter, granddaughter, stepson, grandson, her son, his son,
        my son, niece, nephew, little sister, younger sister, little brother, younger brother, kid sister, kid brother,
        juvenile, girl scout, boy scout, cub scout, school uniform, childlike, child like, childish, baby face,
        babyface*, baby faced, very young, too young, so young, ageplay, age play, ddlg
    """,
    Group.SEX: """
        sex, sexual, sexually, sexualized, sexualised, sexting, intercourse, coitus, porn*, nsfw, hentai, ahegao,
        futanari, erotic, erotica, erotically, eroticism, xxx rated, x rated, xxx video, xxx movie, adult content,
        adult film, adult movie, adult video, softcore, camgirl, onlyfans nude, bdsm, rope bondage, bondage gear,
        make love, making love, lovemaking, masturbat*, orgasm*, ejaculat*, semen, cum, cumming, cumshot, creampie,
        blowjob, blow job, handjob, rimjob, deepthroat*, deep throat, fellatio, cunnilingus, gangbang*, threesome,
        orgy, orgies, fuck*, bukkake, dildo, buttplug, butt plug, strapon, touching herself, touching himself,
        doggystyle, doggy style, reverse cowgirl, missionary position, upskirt*, downblouse*, striptease*, milf,
        incest*, bestiality, zoophil*, pedophil*, paedophil*, pedo, paedo, rape, raped, raping, rapist, molest*,
        groped, slut*, whore, lewd, horny, cocksuck*, his cock, her cock, big cock, huge cock,
        hard cock, thick cock, sucking cock, dick pic, big dick, huge dick, his dick, hard dick, sucking dick
    """,
    Group.NUDITY: """
        nude, nudist, nudity, naked*, nekkid, nekid, topless, unclothed, undressed, undressing, undresses, disrobed,
        disrobing, no clothes, no clothing, without clothes, without clothing, without any clothes,
        without any clothing, without her clothes, without his clothes, no underwear, without underwear, no panties,
        without panties, wearing nothing, wears nothing, bare breast, bare breasted, exposed breast, exposed nipple,
        bare ass, bare butt, bare buttock, clothes off, taking off her clothes, taking off his clothes,
        takes off her clothes, takes off his clothes, removing her clothes, removing his clothes, bottomless woman,
        bottomless man
    """,
    Group.ANATOMY: """
        penis, penises, phallus, vagina, vaginal, vulva, clitoris, labia, scrotum, testicle, genital, genitalia,
        pubic, nipple, areola, areolae, boob, boobies, tits, titties, pussy, pussies, anus, anal, butthole,
        private parts, camel toe, cameltoe
    """,
    Group.SUGGESTIVE: """
        sexy, sexier, sexiest, seductive*, seduce, seduced, seducing, sensual*, lingerie, underwear, underpants, panties,
        panty, bra, thong, gstring, negligee, see through dress, see through clothes, see through clothing,
        see through shirt, see through top, see through blouse, see through outfit, see through nightgown,
        wet t shirt, wet tshirt, micro bikini, microbikini, string bikini, provocative pose, provocative outfit,
        provocative clothing, provocative look, posing provocatively, suggestive pose, suggestive position,
        suggestive outfit, suggestive look, posing suggestively, bedroom eyes, spread legs, legs spread, spreading legs,
        spreading her legs, legs apart, ecchi, fetish*, crotch, cleavage, breasts, busty, voluptuous, buttock,
        bare bottom, twerk*, lap dance, pole dance, pole dancing, stripper, strip club, prostitut*, hooker, escort girl,
        brothel, onlyfans, playboy, french kiss, french kissing, making out with, vibrator
    """,
}

EXCUSED = """
    [annal], [annals], [brass], [poorness], [rapping], [rapped],
    [kid] glove, [kid] gloves, [kid] leather, [kid] skin, billy the [kid], sundance [kid], cisco [kid], [kid] rock,
    [kid] cudi, [child] s pose, [childs] pose, [teenage] mutant ninja, [teen] titans, [lolita] fashion, gothic [lolita],
    [baby] blue, [baby] pink, [baby] s breath, [babys] breath, [baby] bump, [baby] oil, [baby] grand, [baby] hair,
    [baby] bangs, [baby] yoda, [baby] elephant, [boy] band, [boy] george, [boy] shorts,
    [1boy], [2boys], [3boys], [4boys], [5boys],
    [naked] mole, [naked] eye, [naked] eyes, [naked] cake, [naked] cakes, [naked] bike, [naked] motorcycle,
    [naked] motorbike, [naked] neck, [naked] gun, [naked] flame, [naked] flames, [naked] truth, [naked] tree,
    [naked] trees, [naked] branch, [naked] branches, [naked] bulb, [naked] bulbs, [naked] singularity, [naked] wire,
    [nude] lipstick, [nude] lips, [nude] lip, [nude] matte, [nude] makeup, [nude] make up, [nude] nails, [nude] nail,
    [nude] polish, [nude] manicure, [nude] eyeshadow, [nude] blush, [nude] palette, [nude] tone, [nude] tones,
    [nude] color, [nude] colors, [nude] colour, [nude] colours, [nude] colored, [nude] coloured, [nude] shade,
    [nude] shades, [nude] hue, [nude] hues, [nude] beige, [nude] pink, [nude] heels, [nude] high heels, [nude] pumps,
    [nude] shoes, [nude] sandals, [nude] stilettos, [nude] boots, [nude] flats, [nude] satin, [nude] silk, [nude] suede,
    [nude] leather, [nude] patent, [nude] mesh, [nude] tulle, [nude] lace, [nude] fabric, [nude] dress, [nude] gown,
    [nude] skirt, [nude] bodysuit, [nude] tights, [nude] stockings, [nude] pantyhose, [nude] handbag, [nude] background,
    [topless] jeep, [topless] car, [topless] bus, [topless] tower, [undressed] salad, [undressed] stone, [undressed] christmas, [naked] christmas,
    [clothes] off the, [make] love not war, [orgy] of color, [orgy] of colors, [orgy] of colour,
    [orgy] of colours, [whore] of babylon, [intercourse] pennsylvania, may [pole] dance, may [pole] dancing,
    [undressed] wood, [undressed] timber,
    closet [without] clothes, wardrobe [without] clothes, rack [without] clothes,
    same [sex], opposite [sex], single [sex], fair [sex], fairer [sex], biological [sex], [sex] and the city,
    [sex] pistols, [sex] symbol, [sex] symbols, [sex] education, [sex] ed, [sex] ratio, [sex] chromosome,
    [sex] chromosomes, [sex] hormone, [sex] hormones, [sex] reveal, [sex] of the baby, [sex] discrimination,
    [sexual] orientation, [sexual] education, [sexual] health, [sexual] dimorphism, [sexual] selection,
    [sexual] harassment, [sexual] reproduction, food [porn], earth [porn], car [porn], ruin [porn], no [nsfw], not [nsfw],
    no [nudity], [cum] laude, summa [cum], magna [cum], kitchen [cum], [cum] dining, bar [cum], office [cum],
    [horny] toad, [horny] lizard, [horny] devil, paint [stripper], wallpaper [stripper], wire [stripper],
    varnish [stripper], concrete [vibrator], [rape] field, [rape] fields, [rape] flower, [rape] flowers,
    [rape] blossom, [rape] blossoms, [rape] seed, [rape] oil, oilseed [rape], yellow [rape], [rape] of europa,
    [rape] of proserpina, [rape] of persephone, [rape] of the sabine, [rape] of the lock, [rape] of lucretia,
    great [tits], blue [tits], coal [tits], marsh [tits], willow [tits], crested [tits], tailed [tits], bearded [tits],
    footed [boobies], brown [boobies], red [boobies], [boob] tube, [pussy] willow, [pussy] willows, [pussy] cat,
    [pussy] cats, [pussy] riot, bottle [nipple], bottle [nipples], silicone [nipple], grease [nipple], [anal] fin,
    [anal] fins, chicken [breasts], turkey [breasts], duck [breasts], rubber [nipple],
    rubber [nipples], sports [bra]
"""

NOT_JOINED = """
    g string, pen is, an al, an us, who re, cream pie, hand job, under age, or al
"""
"""Pairs that make a term when written in one, and are usual side by side."""

GLUED = """
    children, toddler, preteen, underage, schoolgirl, schoolboy, loli, shota, teen, child, kiddie, infant,
    nude, naked, porn, nsfw, hentai, blowjob, cumshot, pussy, penis, topless, boobs, lolicon, shotacon
"""
"""What is looked for inside of longer words, too: there, only two of them together say anything."""
