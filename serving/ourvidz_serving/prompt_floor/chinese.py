"""The Chinese terms of the floor, in simplified characters.

Chinese is written without blanks, so a term is found anywhere, and the guards say where it is part of something else:
性爱 is no term in 女性爱好者, and 口交 is none in 路口交通.
"""

from __future__ import annotations

from collections.abc import Sequence

from ourvidz_serving.prompt_floor.lexicon import Group, Guarded

TERMS: dict[Group, Sequence[str | Guarded]] = {
    Group.OUTRIGHT: ("恋童", "娈童", "幼幼片", "幼交", "萝莉控", "正太控"),
    Group.MINOR: (
        # small children
        "儿童", "孩童", "小孩", "幼儿", "幼童", "幼女", "幼男", "女童", "男童", "婴儿", "婴孩", "小朋友", "小宝宝", "小屁孩",
        "小女孩", "小男孩", "小姑娘", "小妹妹", "小弟弟", "萝莉", "小正太", "年幼", "幼小", "幼儿园", "幼稚园",
        Guarded("孩子", not_after="女男"),
        Guarded("正太", not_before=("阳", "分布", "平", "空")),
        # teenagers
        "未成年", "青少年", "小男生", "小女生", "青春期", "发育期",
        Guarded("少男", not_after="至不多减缺很"),
        Guarded("少女", not_after="至不多减缺很"),
        # at school
        "小学生", "中学生", "初中", "学生妹", "中学女", "中学男",
        Guarded("小学", not_after="大", not_before=("者", "说")),
        Guarded("高中", not_after="提最很跳", not_before=("低", "端", "档", "央", "间", "音", "心")),
    ),
    Group.PERHAPS_MINOR: (
        "宝宝", "女儿", "女学生", "男学生", "侄女", "外甥女", "孙女", "继女", "养女", "妹妹", "弟弟", "校服", "童颜", "幼齿",
        "男孩", "jk制服", "稚嫩", "娃娃脸",
    ),
    Group.SEX: (
        Guarded("色情", not_after="红橙黄绿青蓝紫粉白黑灰金银彩棕褐米暖冷特夜角本脸神景", not_before=("人", "侣", "书", "调", "绪", "感", "怀", "节", "话", "趣", "境", "景", "歌")),
        Guarded("情色", not_after="爱心热激感深", not_before=("彩", "调", "泽")),
        Guarded("黄片", not_after="金蛋姜地土橙", not_before=("岩",)),
        "成人片", "成人电影", "成人视频", "三级片",
        Guarded("淫", not_after="浸能", not_before=("雨", "浸", "巧", "威")),
        Guarded("做爱", not_after="叫当", not_before=("心", "吃", "好", "国", "情", "做", "的")),
        Guarded("性爱", not_after="女男同异两雄雌中理个感母父", not_before=("好", "人", "心", "护")),
        Guarded("性交", not_after="女男同异两雄雌中理线弹", not_before=("流", "谈", "往", "通", "接", "易", "替", "叉", "互", "付", "换", "错")),
        Guarded("性行为", not_after="女男同异个理"),
        Guarded("性虐", not_after="女男"), Guarded("性侵", not_after="女男略击"), Guarded("性骚扰", not_after="女男"),
        Guarded("性奴", not_after="女男"), Guarded("性器", not_after="女男弹磁线柔"), "性暗示", "性挑逗", "性诱惑",
        Guarded("口交", not_after="路人出进接窗港门渡风关", not_before=("通", "互", "流", "易", "替", "汇", "接", "叉", "错", "付", "换", "赞", "传", "誉", "称")),
        Guarded("口爆", not_after="路门窗港出入井", not_before=("炸", "发")),
        Guarded("内射", not_after="室馆体境国向", not_before=("箭", "击", "门", "入", "球", "灯")),
        Guarded("射精", not_after="发照反折散辐注放喷投扫", not_before=("准", "美", "细", "度", "确", "致", "密", "灵")),
        Guarded("精液", not_after="酒", not_before=("体",)),
        Guarded("自慰", not_after="独亲以堪", not_before=("问", "劳")),
        Guarded("强暴", not_after="超畏", not_before=("风", "雨", "雪")),
        "肛交", "手淫", "强奸", "轮奸", "迷奸", "奸淫", "猥亵", "援交", "卖淫", "嫖", "乱伦", "颜射", "春药", "床戏", "骚货",
        "荡妇",
    ),
    Group.NUDITY: (
        "裸体", "全裸", "半裸", "裸照", "裸女", "裸男", "裸身", "裸睡", "裸模", "裸聊", "裸着", "一丝不挂", "光着身", "赤身",
        "没穿衣服", "不穿衣服", "没有穿衣", "未穿衣", "没穿内", "不穿内", "脱掉衣服", "脱去衣服", "脱下衣服", "脱衣服", "脱衣舞",
        "露胸", "光屁股",
        Guarded("赤裸", not_before=("裸",)),
        Guarded("裸露", not_before=("的岩", "的土", "的石", "的山", "的树", "的砖", "的红砖", "的混凝土", "的水泥", "岩石", "地表", "的地")),
        Guarded("露点", not_before=("温", "仪", "湿")),
        Guarded("露乳", not_after="甘白花雨", not_before=("液", "霜")),
        Guarded("脱光", not_after="摆"),
    ),
    Group.ANATOMY: (
        "阴茎", "阴户", "阴唇", "阴蒂", "阴毛", "阳具", "生殖器", "乳头", "乳晕", "乳沟", "巨乳", "爆乳", "奶头", "屁眼", "肛门",
        "私处", "私密部位",
        Guarded("阴道", not_after="林山华江淮汉"),
        Guarded("阴部", not_before=("分", "队", "落")),
        Guarded("美乳", not_after="完甜鲜醇精", not_before=("酪", "制", "品", "牛", "糖")),
        Guarded("小穴", not_before=("居", "鸟")),
        Guarded("肉棒", not_after="烤鸡牛猪蟹鱼"),
        Guarded("鸡巴", not_before=("西",)),
        Guarded("乳房", not_before=("癌", "检", "x光", "超声")),
        Guarded("下体", not_after="天地水名", not_before=("育", "验", "系", "积", "重", "操", "会", "现")),
    ),
    Group.SUGGESTIVE: (
        Guarded("性感", not_after="线弹女男理个韧磁知惯柔感", not_before=("知", "受", "觉", "染", "应", "恩", "谢", "悟", "官", "冒")),
        Guarded("色诱", not_before=("导", "发")), Guarded("大胸", not_before=("襟", "怀")),
        "内衣", "内裤", "胸罩", "文胸", "丁字裤", "情趣用品", "情趣服", "撩人的姿", "勾引", "湿身诱惑", "走光", "裙底风光",
        "偷拍裙底", "透视装", "挑逗的眼神", "挑逗的姿势", "诱惑的姿势", "诱惑姿势", "制服诱惑", "香艳", "性欲", "胴体",
        "丰满的胸", "翘臀", "呻吟", "娇喘", "张开双腿", "分开双腿", "妓女", "妓院",
    ),
}  # fmt: skip
