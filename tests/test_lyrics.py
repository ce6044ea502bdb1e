"""Lyrics to syllables: the dictionary, the letter-to-sound model, odd scripts and bad input."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import train_g2p

from distill.errors import LyricsError
from distill.lyrics import (
    Syllable,
    Verse,
    g2p,
    parse,
    phones,
    pinyin,
    read,
    sing_text,
    sing_texts,
    syllables,
    words,
)
from distill.lyrics.g2p import LETTER_OF, PHONE_OF, VOWELS
from distill.lyrics.pronounce import number, sound


def pieces(word: str, language: str = "en") -> list[str]:
    return [sing_text(syllable) for syllable in syllables(word, language)]


def test_letters_stand_one_to_one_for_the_phones():
    assert len(LETTER_OF) == len(PHONE_OF) == 39
    assert all(len(letter) == 1 and letter.isascii() and letter.isalpha() for letter in PHONE_OF)
    assert sum(letter in VOWELS for letter in PHONE_OF) == len(VOWELS) == 15


def test_words_of_the_dictionary():
    assert phones("stream") == ("S", "T", "R", "IY", "M")
    assert phones("Gently") == ("JH", "EH", "N", "T", "L", "IY")
    assert len(g2p.lexicon()) > 120_000


def test_syllables_are_cut_by_maximal_onset():
    assert syllables("stream") == [Syllable("str", "I", "m")]
    assert pieces("extra") == ["e k", "s t r u"]
    assert pieces("singer") == ["s i N", "R"]  # NG begins no syllable
    assert pieces("angry") == ["a N", "g r I"]
    assert pieces("abstract") == ["a b", "s t r a k t"]


def test_syllables_hold_every_phone_in_order():
    for word in random.Random(0).sample(sorted(g2p.lexicon()), 2000):
        cut = syllables(word)
        assert "".join("".join(syllable) for syllable in cut) == sound(word)
        assert all(syllable.nucleus in VOWELS for syllable in cut)
        assert not set("".join(syllable.onset + syllable.coda for syllable in cut)) & set(VOWELS)


def test_words_of_a_line():
    assert words("Row, row—don’t STOP!  'til singin' \U0001f3b5") == [
        "row",
        "row",
        "don't",
        "stop",
        "'til",
        "singin'",
    ]
    assert words("'hello' rock'n'roll") == ["hello", "rock'n'roll"]
    assert words("naïve 24") == ["naïve", "24"]
    assert words("\U0001f3b5 *** -- ' _") == []


def test_codec_tokens_stay_words():
    assert words("<custom_token_5><|audio|>") == ["custom", "token", "5", "audio"]
    assert pieces("5") == ["f Y v"]


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("loooove", "love"),
        ("yeahhh", "yeah"),
        ("goood", "good"),
        ("STREAM", "stream"),
        ("café", "cafe"),
        ("24", "twenty-four"),
    ],
)
def test_spellings_of_songs(word: str, same: str):
    assert sound(word) == "".join(sound(part) for part in same.split("-"))


def test_endings_the_dictionary_lacks():
    assert "brumble" not in g2p.lexicon()
    assert sound("singin'") == "siNin"
    assert sound("pebble's") == sound("pebble") + "z"
    assert sound("ostrich's") == sound("ostrich") + "uz"
    assert sound("5th") == "fYvT"


def test_numbers_are_read_out():
    assert number("0") == ["zero"] and number("13") == ["thirteen"]
    assert number("342") == ["three", "hundred", "forty", "two"]
    assert number("1905") == ["nineteen", "oh", "five"]
    assert number("2000000") == ["two", "million"]
    assert number("007") == ["zero", "zero", "seven"]
    assert number("9" * 400) == ["nine"] * 400


def test_unseen_english_words():
    """None of these is in the dictionary; the readings are what an English reader would say."""
    readings = {
        "blicket": "blikut",
        "snorpy": "snOrpI",
        "zorbing": "zOrbiN",
        "glimp": "glimp",
        "frandle": "frandul",
    }
    assert not set(readings) & set(g2p.lexicon())
    assert sum(sound(word) == reading for word, reading in readings.items()) >= 4


def test_spanish_is_read_by_its_rules():
    line = "soy un fantasma que la tristeza es muy extraña huella guerra"
    sung = [" ".join(pieces(word, "es")) for word in words(line)]
    assert sung == [
        "s Q", "V n", "f A n t A s m A", "k e", "l A", "t r I s t e s A", "e s", "m w I",
        "e k s t r A n y A", "w e y A", "g e r A",
    ]  # fmt: skip
    assert [len(syllables(word, "es")) for word in ("día", "aire", "atraviesa", "ooh")] == [
        2,
        2,
        4,
        1,
    ]
    # and as best it can when nobody says it is Spanish
    assert all(syllables(word) for word in words(line))


def test_a_chinese_character_is_a_word_and_a_syllable():
    assert words("爱你baby，123 𠮷！々") == ["爱", "你", "baby", "123", "𠮷", "々"]
    lines = {
        "月亮代表我的心": "y e l y A N d Y b y W w O d u S I n",
        "love 花": "l u v h w A",
        "人人々": "r u n r u n r u n",
    }
    for line, sung in lines.items():
        assert " ".join(sing_texts(line, "en")) == " ".join(sing_texts(line, "zh")) == sung
    assert pieces("西安") == ["S I", "A n"]  # and not by maximal onset across characters
    assert pieces("食べる", "ja") == ["A", "b I", "r V"]  # its kanji are not Mandarin


AMONG_NEIGHBOURS = {
    "长大": "zhang da", "很长": "hen chang", "音乐": "yin yue", "快乐": "kuai le",
    "银行": "yin hang", "行走": "xing zou", "还给": "huan gei", "还有": "hai you",
    "了解": "liao jie",
}  # fmt: skip


def test_a_chinese_character_is_read_among_its_neighbours():
    for line, spoken in AMONG_NEIGHBOURS.items():
        assert " ".join(pinyin.readings(line)) == spoken
        assert [sing_text(syllable) for word in read(words(line), "zh") for syllable in word] == [
            " ".join(pinyin.spell(syllable)) for syllable in spoken.split()
        ]


def test_every_reading_of_mandarin_is_one_syllable():
    from pypinyin.constants import PINYIN_DICT

    common = [chr(code) for code in PINYIN_DICT if 0x4E00 <= code < 0xA000]
    unread = [character for character in common if pinyin.readings(character) == [""]]
    odd = {
        reading
        for character in common
        for reading in pinyin.readings(character)
        if not pinyin.spell(reading)
    }
    assert len(common) > 20_000 and not unread and odd <= {"wong"}
    assert pinyin.split("yuan") == ("", "van") and pinyin.split("qu") == ("q", "v")
    readings = ("qiong", "lve", "ng", "shi", "weng", "er", "wong", "")
    spelled = ["CyUN", "lye", "uN", "SR", "wuN", "R", "", ""]
    assert [pinyin.spell(reading) for reading in readings] == spelled


@pytest.mark.parametrize(
    "word",
    [
        "привет",
        "ελλάδα",
        "かな",
        "한글",
        "茉莉花",
        "שלום",
        "नमस्ते",
        "½",
        "٣",
        "straße",
        "h",
        "brr",
        "x²",
    ],
)
@pytest.mark.parametrize("language", ["en", "es"])
def test_every_script_can_be_sung(word: str, language: str):
    for part in words(word):
        assert syllables(part, language)


def test_odd_text_never_crashes():
    chance = random.Random(1)
    spans = [(32, 127), (0, 0x250), (0, 0x3000), (0, 0x110000)]
    for _ in range(1500):
        text = "".join(
            chr(chance.randrange(*chance.choice(spans))) for _ in range(chance.randrange(1, 9))
        )
        for word in words(text):
            for language in ("en", "es"):
                assert syllables(word, language), (text, word)


def test_sections():
    verses = parse(
        "[verse]\nrow row\n\n\U0001f3b5\ngently\n[Chorus 2] la la\n[pre-chorus: soft]\nhey"
    )
    assert [verse.tag for verse in verses] == ["verse", "chorus", "pre-chorus"]
    assert verses[0].lines == ("row row", "gently")
    assert [verse.lines for verse in parse("a b\n\nc")] == [("a b",), ("c",)]
    assert parse("[intro]\n[verse]\nla\n\nla la\n[chorus x 2]\nhey\n[Guitar solo]\n[chorus]") == [
        Verse("intro", ()), Verse("verse", ("la", "la la")), Verse("chorus-x2", ("hey",)),
        Verse("guitar-solo", ()), Verse("chorus", ()),
    ]  # fmt: skip


def test_chords_are_no_sections_and_no_words():
    verses = parse("[Am]Hello dark[G]ness [C#m7/B]my\n[F] [G]\n[Bridge]\nold")
    assert verses == [
        Verse("verse", ("[Am]Hello dark[G]ness [C#m7/B]my",)),
        Verse("bridge", ("old",)),
    ]
    assert words(verses[0].lines[0]) == ["hello", "darkness", "my"]
    assert words("[a] (Am) [hey] Dm") == ["a", "am", "hey", "dm"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"), ("  \n ", "empty"), ("\U0001f3b5\n***", "no letter or digit"),
        ("la " * 40_000, "120,000 characters"),
        ("a" * 5000, "one word of 5000 "
                     "letters"), ("[verse]\n[chorus]", "no letter"), (None, "NoneType"),
    ],
)  # fmt: skip
def test_lyrics_that_cannot_be_sung(text: str, says: str):
    with pytest.raises(LyricsError, match=says) as caught:
        parse(text, "song.txt")
    assert str(caught.value).startswith("song.txt: ") and "\n" not in str(caught.value)


# --- the model ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> tuple[bytes, g2p.LetterModel, dict[str, str], dict[str, str]]:
    plain = {word: phones for word, phones in g2p.lexicon().items() if word.isalpha()}
    chosen = random.Random(2).sample(sorted(plain), 6500)
    known, unseen = chosen[:6000], chosen[6000:]
    packed, model = train_g2p.train_letters({word: plain[word] for word in known}, order=4)
    return (
        packed,
        model,
        {word: plain[word] for word in known[:300]},
        {word: plain[word] for word in unseen[:300]},
    )


def test_a_model_learns_to_read(small):
    _, model, known, unseen = small
    assert train_g2p.accuracy(model, known)[0] > 0.6
    right, phone_accuracy = train_g2p.accuracy(model, unseen)
    assert phone_accuracy > 0.8 and right > 0.3  # 6,000 words; the shipped one learned from 124,925


def test_probabilities_sum_to_one(small):
    """Smoothing must share out exactly one; only a byte's rounding (2.4 % a step) may be seen."""
    _, model, _, _ = small
    symbols = [g2p.END, *range(g2p.FIRST, g2p.FIRST + len(model.pairs))]
    contexts = [key for key in model.yielded if key and key % g2p.BASE != g2p.END]
    for history in random.Random(3).sample(contexts, 50):
        total = sum(model.probability(symbol, model.contexts(history)) for symbol in symbols)
        assert total == pytest.approx(1.0, abs=0.03)


def test_a_model_is_its_file(small):
    packed, model, known, _ = small
    assert g2p.read_model(packed) == model
    again, _ = train_g2p.train_letters({**known}, order=3)
    assert again == train_g2p.train_letters({**known}, order=3)[0]


def test_alignment_gives_back_word_and_sound():
    some = {"singing": "siNiN", "box": "bAks", "knee": "nI", "phone": "fon"}
    for pairs, (word, spelled) in zip(train_g2p.align(some, every=1), some.items(), strict=True):
        assert "".join(letter for letter, _ in pairs) == word
        assert "".join(part for _, part in pairs) == spelled


def test_the_shipped_model_is_small_and_good():
    assert (g2p.HOME / "reader.npz.xz").stat().st_size <= 1.5 * 2**20
    some = random.Random(4).sample(sorted(g2p.lexicon()), 300)
    right, _ = train_g2p.accuracy(g2p.model(), {word: g2p.lexicon()[word] for word in some})
    assert right > 0.7  # it has seen these words; 71 % is its figure on unseen ones
    assert all(np.isfinite(value) and 0 <= value <= 1 for value in g2p.model().gain.values())


def test_distance_counts_edits():
    assert train_g2p.distance("kitten", "sitting") == 3
    assert train_g2p.distance("", "abc") == 3 and train_g2p.distance("abc", "abc") == 0


def test_lyrics_need_no_torch():
    code = (
        "import sys; from distill.lyrics import syllables; syllables('boat'); syllables('blicket');"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
