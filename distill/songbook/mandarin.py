"""Mandarin: words with their pinyin, and lines of five and seven characters that rhyme.

One character is one syllable, one word of the song and one note or more; each character has one
reading here, so words with another (long and to grow, both 长) are left out. The melody takes the
place of the tones. A fifth of the words is held out, by the sounds of their characters: no training
song holds one of those sounds.

Pieces are spelled as `distill.lyrics.pinyin` does. Written for this project (CC0).
"""

from __future__ import annotations

import functools
import random
import re

from distill.lyrics import Syllable, cut
from distill.lyrics.pinyin import spell, split
from distill.songbook.words import hashed_out

HELD_OUT_OF_256 = 28  # of all sounds; of the words, which have two of them, a fifth
_TRIALS = 120

# part: word pinyin. N things, L places, P people, A adjectives, D times, T verbs with an object,
# V without
_WORDS = {
    "N": """月亮 yue liang;太阳 tai yang;星星 xing xing;天空 tian kong;白云 bai yun;
        春风 chun feng;秋雨 qiu yu;大雪 da xue;花朵 hua duo;小草 xiao cao;大树 da shu;
        树叶 shu ye;青山 qing shan;河水 he shui;小溪 xiao xi;大海 da hai;浪花 lang hua;
        小船 xiao chuan;白帆 bai fan;灯火 deng huo;钟声 zhong sheng;琴声 qin sheng;
        歌声 ge sheng;笛声 di sheng;小鸟 xiao niao;燕子 yan zi;蝴蝶 hu die;蜜蜂 mi feng;
        鱼儿 yu er;马儿 ma er;羊群 yang qun;白鹤 bai he;明灯 ming deng;彩虹 cai hong;
        露珠 lu zhu;炊烟 chui yan;夕阳 xi yang;晚霞 wan xia;晨光 chen guang;茶香 cha xiang;
        书信 shu xin;照片 zhao pian;礼物 li wu;梦想 meng xiang;心愿 xin yuan;笑脸 xiao lian;
        眼睛 yan jing;泪水 lei shui;故事 gu shi;时光 shi guang;岁月 sui yue;青春 qing chun;
        爱情 ai qing;希望 xi wang;回忆 hui yi;脚步 jiao bu;身影 shen ying;窗帘 chuang lian;
        雨伞 yu san;风筝 feng zheng;苹果 ping guo;桃花 tao hua;梅花 mei hua;荷花 he hua;
        柳树 liu shu;竹林 zhu lin;麦田 mai tian;石头 shi tou;泥土 ni tu;火车 huo che;
        帽子 mao zi;红豆 hong dou;衣裳 yi shang;琵琶 pi pa;鼓声 gu sheng""",
    "L": """花园 hua yuan;山谷 shan gu;森林 sen lin;村庄 cun zhuang;城市 cheng shi;
        草原 cao yuan;田野 tian ye;校园 xiao yuan;院子 yuan zi;屋子 wu zi;小巷 xiao xiang;
        故乡 gu xiang;梦乡 meng xiang;远方 yuan fang;夜空 ye kong;海湾 hai wan;湖心 hu xin;
        人间 ren jian;果园 guo yuan;书房 shu fang;怀抱 huai bao;风雨 feng yu""",
    "P": """姑娘 gu niang;孩子 hai zi;朋友 peng you;妈妈 ma ma;爸爸 ba ba;爷爷 ye ye;
        奶奶 nai nai;哥哥 ge ge;妹妹 mei mei;弟弟 di di;老师 lao shi;农夫 nong fu;渔夫 yu fu;
        牧童 mu tong;歌手 ge shou;游子 you zi;爱人 ai ren;伙伴 huo ban;少年 shao nian;
        诗人 shi ren""",
    "A": """美丽 mei li;温柔 wen rou;明亮 ming liang;安静 an jing;快乐 kuai le;寂寞 ji mo;
        遥远 yao yuan;古老 gu lao;年轻 nian qing;善良 shan liang;金色 jin se;银色 yin se;
        红色 hong se;蓝色 lan se;洁白 jie bai;清凉 qing liang;温暖 wen nuan;甜蜜 tian mi;
        悠长 you chang;高大 gao da;小小 xiao xiao;弯弯 wan wan;圆圆 yuan yuan;静静 jing jing;
        芬芳 fen fang;孤单 gu dan;自由 zi you;平凡 ping fan;可爱 ke ai""",
    "V": """歌唱 ge chang;飞翔 fei xiang;跳舞 tiao wu;微笑 wei xiao;哭泣 ku qi;等待 deng dai;
        流浪 liu lang;奔跑 ben pao;做梦 zuo meng;回家 hui jia;远行 yuan xing;开放 kai fang;
        闪光 shan guang;飘荡 piao dang;摇晃 yao huang;沉默 chen mo;徘徊 pai huai;来临 lai lin;
        醒来 xing lai;离开 li kai;相爱 xiang ai;盛开 sheng kai;燃烧 ran shao;回响 hui xiang""",
    "T": """想念 xiang nian;思念 si nian;看见 kan jian;听见 ting jian;爱上 ai shang;
        忘记 wang ji;记得 ji de;带走 dai zou;寻找 xun zhao;守护 shou hu;陪伴 pei ban;
        照亮 zhao liang;唤醒 huan xing;亲吻 qin wen;追赶 zhui gan;珍惜 zhen xi""",
    "D": """今夜 jin ye;明天 ming tian;昨天 zuo tian;春天 chun tian;夏天 xia tian;秋天 qiu tian;
        冬天 dong tian;清晨 qing chen;黄昏 huang hun;从前 cong qian;如今 ru jin;每天 mei tian;
        有时 you shi""",
}
# characters that stand by themselves in templates, and those of the traditional songs
_SINGLE = """的 de 在 zai 里 li 我 wo 你 ni 他 ta 们 men 和 he 有 you 个 ge 了 le 着 zhe 是 shi
    不 bu 要 yao 都 dou 像 xiang 也 ye 啊 a 呀 ya 来 lai 去 qu 又 you 那 na 这 zhe 为 wei 一 yi
    还 hai 飘 piao"""
_TRADITIONAL = """好 hao 朵 duo 茉 mo 莉 li 满 man 枝 zhi 桠 ya 香 xiang 夸 kua 让 rang 将 jiang
    摘 zhai 下 xia 送 song 给 gei 别 bie 家 jia 长 chang 亭 ting 外 wai 道 dao 边 bian 碧 bi
    连 lian 拂 fu 残 can 之 zhi 涯 ya 地 di 角 jiao 知 zhi 交 jiao 半 ban 零 ling 落 luo 壶 hu
    浊 zhuo 酒 jiu 尽 jin 余 yu 欢 huan 宵 xiao 寒 han 草 cao 芳 fang 天 tian 夕 xi 阳 yang
    山 shan 晚 wan 风 feng 柳 liu 笛 di 声 sheng 古 gu 今 jin 梦 meng 人 ren 花 hua 美 mei 丽 li
    白 bai 芬 fen"""
_LIKE = {  # finals that rhyme with another one
    "ui": "ei", "iu": "ou", "un": "en", "in": "en", "vn": "en", "ing": "eng", "ie": "ye",
    "ve": "ye", "v": "i", "ian": "an", "uo": "o", "e": "o",
}  # fmt: skip
TEMPLATES = {
    5: ("A 的 N", "N 在 L", "N V 了", "我 D V", "D 的 N", "N 和 N", "A 的 P", "P 在 L", "L 的 N",
        "N 飘 呀 飘", "我 的 P 啊", "你 和 我 V"),
    7: ("A 的 N V", "我 在 L 里 V", "D 我 们 V", "N 和 N V", "P V 在 L", "你 的 N 像 N",
        "我 T A 的 N", "D 我 T N", "L 里 有 个 P", "那 是 我 的 A N", "A 的 N 在 L", "P T 你 的 N",
        "N 啊 N 你 V", "一 个 P T N", "D P 还 V 着", "这 里 的 N A"),
}  # fmt: skip


@functools.cache
def _book() -> dict[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    """Part -> (word, pinyin of each character)."""
    pairs = {part: map(str.split, text.split(";")) for part, text in _WORDS.items()}
    return {part: tuple((word, tuple(pinyin)) for word, *pinyin in pairs[part]) for part in pairs}


@functools.cache
def readings() -> dict[str, str]:
    """Character -> pinyin, of all characters there are. One reading each (tested)."""
    single = f"{_SINGLE} {_TRADITIONAL}".split()
    characters = dict(zip(single[::2], single[1::2], strict=True))
    for words in _book().values():
        for word, pinyin in words:
            characters.update(zip(word, pinyin, strict=True))
    return characters


@functools.cache
def _held_sounds() -> frozenset[str]:
    sounds = {sound for words in _book().values() for _, pinyin in words for sound in pinyin}
    common = set(_SINGLE.split()[1::2])
    return frozenset(sound for sound in sounds - common if hashed_out(sound, HELD_OUT_OF_256))


def is_held_out(character: str) -> bool:
    """Whether no training song holds the sound of this character."""
    return readings().get(character, "") in _held_sounds()


@functools.cache
def choices(part: str, held_out: bool) -> tuple[str, ...]:
    """Words of a part of speech: those with a held-out sound, or all others."""
    return tuple(word for word, _ in _book()[part] if any(map(is_held_out, word)) == held_out)


def stanza(
    rng: random.Random, syllables: int, lines: int, held_out: bool, used: set[str]
) -> list[str]:
    """Lines not in `used`, which they join; even ones rhyme with the first or the one before."""
    while True:
        texts: list[str] = []
        for row in range(lines):
            rhyme = texts[0 if rng.random() < 0.5 else row - 1][-1] if row % 2 else ""
            text = _line(rng, syllables, held_out, rhyme, used | set(texts))
            if not text:
                break
            texts.append(text)
        else:
            used |= set(texts)
            return texts


def _line(rng: random.Random, syllables: int, held_out: bool, rhyme: str, used: set[str]) -> str:
    for _ in range(_TRIALS):
        text = ""
        for token in rng.choice(TEMPLATES[syllables]).split():
            if token in _WORDS:
                rare = held_out and rng.random() < 0.6
                token = rng.choice(choices(token, rare) or choices(token, False))
            text += token
        good = len(text) == syllables and text not in used and len(set(text)) > syllables // 2
        if good and (not rhyme or rhymes(text[-1], rhyme)):
            return text
    return ""


def rhymes(character: str, other: str) -> bool:
    """Whether two different characters end alike, their glides aside (-iang and -uang rhyme)."""
    return character != other and _rhyme(character) == _rhyme(other)


def _rhyme(character: str) -> str:
    initial, final = split(readings()[character])
    if final == "i" and initial in ("zh", "ch", "sh", "r", "z", "c", "s"):
        return "-i"
    return re.sub("^[iuv](?=[aoe])", "", _LIKE.get(final, final))


@functools.cache
def syllable(character: str) -> Syllable:
    """A character's sound in the letters of `distill.lyrics.g2p`: 花 -> ("hw", "A", "")."""
    return cut(spell(readings()[character]))[0]
