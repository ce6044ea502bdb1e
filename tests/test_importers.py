"""Lyrics and scores as others write them: the formats' examples and reference libraries' files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lyric_files import BOAT, END, START, ending, mxl, note, refused, score, verses

from distill.errors import LyricsError
from distill.songs import Line
from distill.sources._formats.musicxml import read_musicxml
from distill.sources._formats.played import play_order
from distill.sources._formats.sung import divide
from distill.sources._formats.ultrastar import read_ultrastar
from distill.sources._formats.xml import LARGEST_BYTES, tree, unpacked


def notes(line: Line) -> list[tuple[float, float, float | None, str]]:
    return [(round(n.start, 3), round(n.end, 3), n.midi, n.text) for n in line.notes]


# --- UltraStar ------------------------------------------------------------------------------------
def ultrastar(text: str, seconds: float = 8.0, language: str = "en") -> list[Line]:
    read = read_ultrastar(text, seconds, "x.txt", language)
    return [line for section in read.sections for line in section.lines]


def test_ultrastar_notes_words_and_times():
    first, second = ultrastar(BOAT)  # a beat is 15 / 150 = 0.1 s
    assert (first.text, second.text) == ("Row, row your boat", "gently down the stream")
    assert notes(first) == [
        (1.0, 1.4, 60, "r o"), (1.5, 1.9, 60, "r o"),
        (2.0, 2.3, 64, "y O r"), (2.3, 2.7, 65, "b o t"),
    ]  # fmt: skip
    assert [(w.text, round(w.start, 2), round(w.end, 2)) for w in first.words] == [
        ("row", 1.0, 1.4), ("row", 1.5, 1.9), ("your", 2.0, 2.3), ("boat", 2.3, 2.7),
    ]  # fmt: skip
    assert [(n.midi, n.text) for n in second.notes] == [
        (67, "J e n t"), (64, "l I"), (None, "d W n"), (None, "D u"), (60, "s t r I m"), (62, ""),
    ]  # fmt: skip
    assert second.words[-1].end == pytest.approx(4.8)  # with the note that goes on
    assert first.start == pytest.approx(0.76)
    assert first.end == pytest.approx(second.start) == pytest.approx(2.76)
    assert second.end == pytest.approx(4.8 + 0.4)


def test_the_formats_own_examples():
    """Section 3.3.2: 10,5 means 42 beats a minute. 4.1: where the space stands means nothing."""
    [line] = ultrastar("#TITLE:a\n#BPM:10,5\n: 0 4 5 la\n: 7 7 -2  la\n", 60)
    assert notes(line) == [(0.0, 5.714, 65, "l A"), (10.0, 20.0, 58, "l A")]  # F4 and A#3
    before = ultrastar("#BPM:100\n: 0 4 0 Hello \n: 8 4 0 World\n")
    after = ultrastar("#BPM:100\n: 0 4 0 Hello\n: 8 4 0  World\n")
    assert before == after and before[0].text == "Hello World"


def test_ultrastar_relative_times():
    text = (
        "#TITLE:a\n#BPM:150\n#GAP:500\n#RELATIVE:yes\n"
        ": 0 4 0 la\n- 6 10\n: 0 4 2 oh\n- 5 7\n: 1 2 4 ah\n"
    )
    assert [line.notes[0].start for line in ultrastar(text)] == pytest.approx([0.5, 1.5, 2.3])


@pytest.mark.parametrize("marks", [("P1", "P2", "P3"), ("P 1", "P 2", "P 3")])
def test_ultrastar_duets(marks: tuple[str, str, str]):
    first, second, both = marks
    text = (
        f"#TITLE:a\n#BPM:150\n#DUETSINGERP1:Ann\n#P2:Bob\n{first}\n: 0 4 0 la\n- 5\n: 10 4 0 oh\n"
        f"{second}\n: 20 4 0 ah\n- 25\n: 11 4 7 no\n{both}\n: 30 4 0 yes\n"
    )
    read = read_ultrastar(text, 8.0, "x.txt", "en")
    assert [line.text for line in read.sections[0].lines] == ["la", "oh", "ah", "yes"]
    [duet] = [fact for fact in read.facts if fact.name == "duet"]
    assert duet.value == {
        "singers": ["Ann", "Bob"],
        "sung_by": [[1], [1], [2], [1, 2]],
        "left_out": ["no"],
    }


def test_a_duet_in_unison_stands_once():
    sung = ": 0 4 0 la\n: 5 4 0  la\n"
    read = read_ultrastar(f"#TITLE:a\n#BPM:150\nP1\n{sung}P2\n{sung}", 8.0, "x.txt", "en")
    assert len(read.sections[0].lines) == 1 and read.facts[1].value["sung_by"] == [[1, 2]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("#TITLE:a\n: 0 4 0 la", "#BPM is missing"),
        ("#TITLE:a\n#BPM:soon\n: 0 4 0 la", "#BPM is soon"),
        ("#BPM:0\n: 0 4 0 la", "no tempo"),
        ("#BPM:100\n#GAP:x\n: 0 4 0 la", "#GAP is x"),
        ("#BPM:100\n", "no note has a word"),
        ("#BPM:100\n: 0 4 0 ~\n", "no note has a word"),
        ("#BPM:100\n: 0 4 la", r"x.txt:2: ': 0 4 la' is no note"),
        ("#BPM:100\n: 0 0 0 la", "length 0"),
        ("#BPM:100\n: -9 4 0 la", "before the recording"),
        ("#BPM:100\n: 0 4 0 la\n: 99 4 0  la", "beyond the recording"),
        ("#BPM:100\n: 4 4 0 la\n: 0 4 0  la", "does not come after"),
        ("#BPM:100\n: 0 4 0 la\n- 2\n: 2 4 0  la", "begins within the one before"),
        ("#VERSION:2.0.0\n#BPM:100\n: 0 4 0 la", "version 2.0.0"),
        ("#VERSION:1.0.0\n#RELATIVE:yes\n#BPM:100\n: 0 4 0 la", "RELATIVE"),
        ("#BPM:100\n: 0 4 68 la", "MIDI 128, which nobody sings"),
        ("#BPM:100\n: 0 4 -61 la", "x.txt:2: pitch -61"),
        ("#BPM:100\n: 99999999999 4 0 la", "is no note"),
        ("#BPM:100\n: 0 4 0 " + "a" * 100, "one word of 100"),
    ],
)
def test_ultrastar_that_cannot_be_sung(text: str, says: str):
    refused(lambda: ultrastar(text), says)


def test_pieces_over_notes():
    assert divide(["l u v", "l i"], [True, False, True]) == ["l u v", "", "l i"]
    assert divide(["E v", "r i"], [True, True, True]) == ["E v", "r i", ""]
    assert divide(["f Y", "u r"], [True]) == ["f Y u r"]
    assert divide(["f Y", "u r"], [True, False]) == ["f Y", "u r"]
    assert divide(["a", "b", "c", "d"], [True, False, True]) == ["a b", "", "c d"]
    assert divide([], [False, False]) == ["", ""]


# --- MusicXML -------------------------------------------------------------------------------------
def musicxml(content: bytes, seconds: float = 60.0) -> list[Line]:
    return [
        line
        for section in read_musicxml(content, seconds, "x.xml", "en").sections
        for line in section.lines
    ]


HELLO = b"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">
<score-partwise version="4.0">
  <part-list><score-part id="P1"><part-name>Music</part-name></score-part></part-list>
  <part id="P1"><measure number="1">
    <attributes><divisions>1</divisions><key><fifths>0</fifths></key><time><beats>4</beats><beat-type>4</beat-type></time>
      <clef><sign>G</sign><line>2</line></clef></attributes>
    <note><pitch><step>C</step><octave>4</octave></pitch><duration>4</duration><type>whole</type></note>
  </measure></part>
</score-partwise>"""


def test_the_specifications_hello_world_has_no_words():
    refused(lambda: musicxml(HELLO), "no note has a word to sing")
    [line] = musicxml(HELLO.replace(b"<type>whole</type>", b"<lyric><text>hello</text></lyric>"))
    # 120 quarters a minute, where nothing is said
    assert notes(line) == [(0.0, 2.0, 60, "h u l o")]


def test_syllables_ties_melismas_and_rests():
    tie, tied = '<tie type="start"/>', '<tie type="stop"/>'
    content = score(
        '<direction><sound tempo="60"/></direction>' + note("C", 4, 2, "Gen", "begin")
        + note("D", 4, 2, "tly", "end") + note("E", 4, 4, "down", more=tie),
        note("E", 4, 2, more=tied) + note("F", 4, 2) + note("", 0, 2) + note("G", 4, 2, "Oh"),
    )  # fmt: skip
    first, second = musicxml(content)
    assert (first.text, second.text) == ("Gently down", "Oh")
    assert notes(first) == [
        (0.0, 1.0, 60, "J e n t"), (1.0, 2.0, 62, "l I"),
        (2.0, 5.0, 64, "d W n"), (5.0, 6.0, 65, ""),
    ]  # fmt: skip
    assert notes(second) == [(7.0, 8.0, 67, "o")]


def test_tempo_changes_of_any_part_count_for_all():
    sung = score(note("C", 4, 2, "la") + note("C", 4, 2, "la"), note("C", 4, 4, "oh")).decode()
    other = (
        '<part id="P2"><measure><sound tempo="60"/>'
        '<note><rest/><duration>1</duration></note><sound tempo="120"/></measure>'
        "<measure><direction><direction-type><metronome><beat-unit>half</beat-unit>"
        "<per-minute>30</per-minute></metronome></direction-type></direction></measure></part>"
        "</score-partwise>"
    )
    [line] = musicxml(sung.replace("</score-partwise>", other).encode())
    assert [(n.start, n.end) for n in line.notes] == [(0, 1), (1, 1.5), (1.5, 3.5)]


def test_repeats_take_the_next_verse():
    content = score(
        verses("C", "one"),
        START + verses("D", "two", "five"),
        ending("1", "start") + verses("E", "three") + END + ending("1", "stop"),
        ending("2", "start") + verses("F", "six", "seven") + ending("2", "stop"),
        verses("G", "eight"),
    )
    read = read_musicxml(content, 60.0, "x.xml", "en")
    assert [section.lines[0].text for section in read.sections] == [
        "one two three",
        "five seven eight",
    ]
    assert [n.midi for s in read.sections for n in s.lines[0].notes] == [60, 62, 64, 62, 65, 67]


def test_sections_and_lines_that_the_score_names():
    mark = "<direction><direction-type><rehearsal>Chorus 1</rehearsal></direction-type></direction>"
    ended = note("C", 4, 2, "la").replace("</lyric>", "<end-line/></lyric>")
    content = score(ended + note("C", 4, 2, "oh"), mark + note("C", 4, 2, "ah"))
    read = read_musicxml(content, 60.0, "x.xml", "en")
    sections = [(s.tag, [line.text for line in s.lines]) for s in read.sections]
    assert sections == [("verse", ["la", "oh"]), ("chorus", ["ah"])]
    assert "lines_cut_by" not in {fact.name for fact in read.facts}


def test_the_singing_voice_is_found_and_sounds_as_transposed():
    second = (
        "<note><pitch><step>C</step><octave>3</octave></pitch>"
        "<duration>4</duration><voice>2</voice></note>"
    )
    transposed = "<attributes><transpose><chromatic>-2</chromatic></transpose></attributes>"
    content = score(
        transposed + note("D", 4, 4, "la") + "<backup><duration>4</duration></backup>" + second
    )
    assert [n.midi for n in musicxml(content)[0].notes] == [60]


def test_who_made_a_score_is_told():
    head = (
        "<work><work-title>Boat</work-title></work><identification><creator "
        "type='composer'>Ann</creator>"
        "<creator type='lyricist'>Bob</creator><rights>CC0</rights></identification>"
    )
    read = read_musicxml(score(note("C", 4, 2, "la"), head=head), 9.0, "x.xml", "en")
    assert read.about == {"title": "Boat", "artist": "Ann and Bob", "rights": "CC0"}


def test_packed_scores():
    content = score(note("C", 4, 2, "la"))
    assert unpacked(mxl(content), "x.mxl") == content
    refused(lambda: unpacked(mxl(content, "b.xml"), "x.mxl"), "not a whole .mxl")
    refused(lambda: unpacked(mxl(content)[:-30], "x.mxl"), "not a whole .mxl")
    refused(lambda: unpacked(mxl(bytes(LARGEST_BYTES + 1)), "x.mxl"), "unpacks to more than")


BOMB = (
    b'<!DOCTYPE a [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b"]><score-partwise>&j;</score-partwise>"
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not XML"),
        (b"<score-partwise>", "not XML"),
        (b"<html/>", "is not MusicXML"),
        (b"<score-partwise/>", "without measures"),
        (BOMB, "XML entities"),
        (
            b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><score-partwise>&b;</score-partwise>',
            "XML entities",
        ),
        (b"<a>" * 1000, "elements nest"),
        (b'<?xml version="1.0" encoding="cheese"?><a/>', "not XML"),
        (score(note("C", 4, 2, "la"), divisions=0), "divisions"),
        (score(note("X", 4, 2, "la")), "no step"),
        (score(note("C", 99, 2, "la")), "nobody sings"),
        (score(note("C", 4, 10**8, "la")), "beyond the recording"),
        (
            score(note("C", 4, 2, "la").replace(">2<", ">" + "9" * 400 + "<")),
            "where a number belongs",
        ),
        (score('<sound tempo="0"/>' + note("C", 4, 2, "la")), "quarters a minute"),
        (score(note("C", 4, 2, "la") + '<sound dacapo="yes"/>'), "the score jumps"),
        (
            score(note("C", 4, 2, "la") + "<direction><words>D.C. al Fine</words></direction>"),
            "D.C.",
        ),
        (
            score(note("C", 4, 2, "la") + END.replace("/>", ' times="999"/>', 1)),
            "repeated '999' times",
        ),
        (score(note("C", 4, 2, "a" * 100)), "one word of 100"),
    ],
)
def test_scores_that_cannot_be_sung(content: bytes, says: str):
    refused(lambda: musicxml(content), says)


def test_scores_written_by_music21(tmp_path: Path):
    """music21 writes a song; we read it to the same notes and words."""
    music21 = pytest.importorskip("music21", reason="music21 is not installed")
    part = music21.stream.Part()
    part.append(music21.tempo.MetronomeMark(number=90))
    texts = [
        ("Row,", "single"),
        ("row", "single"),
        ("gen", "begin"),
        ("tly", "end"),
        None,
        ("stream.", "single"),
    ]
    melody = [("C4", 1), ("C4", 1.5), ("E4", 0.5), ("F4", 1), ("G4", 0.5), ("A-4", 3)]
    for (name, long), text in zip(melody, texts, strict=True):
        sung = music21.note.Note(name, quarterLength=long)
        if text is not None:
            sung.lyrics.append(music21.note.Lyric(text=text[0], number=1, syllabic=text[1]))
        part.append(sung)
    path = Path(music21.stream.Score([part]).write("musicxml", tmp_path / "x.musicxml"))
    [line] = musicxml(path.read_bytes())
    assert line.text == "Row, row gently stream."
    assert [(n.midi, n.text) for n in line.notes] == [
        (60, "r o"), (60, "r o"), (64, "J e n t"), (65, "l I"), (67, ""), (68, "s t r I m"),
    ]  # fmt: skip
    starts = np.cumsum([0.0] + [long for _, long in melody])[:-1] * 60 / 90
    assert [n.start for n in line.notes] == pytest.approx(list(starts), abs=1e-4)


def suite() -> Path:
    music21 = pytest.importorskip(
        "music21", reason="music21, which brings the suite, is not installed"
    )
    folder = Path(music21.__file__).parent / "musicxml" / "lilypondTestSuite"
    if not folder.is_dir():
        pytest.skip("this music21 brings no LilyPond test suite")
    return folder


def test_the_unofficial_musicxml_test_suite():
    """Every file is read, or refused in one line; its chapter on lyrics word by word."""
    texts = {
        "61a-Lyrics": "Tralali Ja! Trara! Bah!", "61b-MultipleLyrics": "Tralala, ja! Trara...",
        "61c-Lyrics-Pianostaff": "tralali ja!", "61d-Lyrics-Melisma": "Melisma.",
        "61e-Lyrics-Chords": "Lyrics on chords",
        "61f-Lyrics-GracedNotes": "Lyrics on notes with graces",
        "61h-Lyrics-BeamsMelismata": "Melisma Melisma Melisma Melisma",
        "61k-Lyrics-SpannersExtenders": "A longer Text",
        "42a-MultiVoice-TwoVoicesOnStaff-Lyrics": "This is the lyrics of Voice1",
    }  # fmt: skip
    for path in sorted(suite().glob("*.xml")):
        try:
            lines = musicxml(path.read_bytes(), 600.0)
        except LyricsError as error:
            assert "\n" not in str(error)
            lines = []
        if path.stem in texts:
            assert " ".join(line.text for line in lines) == texts.pop(path.stem)
    assert texts == {}


def order_of(name: str) -> list[str | None]:
    measures = tree((suite() / f"{name}.xml").read_bytes(), name).findall("part/measure")
    return [measures[index].get("number") for index, _ in play_order([measures], name)]


@pytest.mark.parametrize("name", ["45a-SimpleRepeat", "45b-RepeatWithAlternatives"])
def test_repeats_are_played_as_music21_plays_them(name: str):
    folder = suite()
    import music21

    read: Any = music21.converter.parse(folder / f"{name}.xml")
    theirs = read.parts[0].expandRepeats().getElementsByClass("Measure")
    assert order_of(name) == [str(measure.measureNumber) for measure in theirs]


def test_repeats_without_a_beginning_and_such_that_do_not_fit():
    # music21 goes to the start
    assert order_of("45c-RepeatMultipleTimes") == list("123" + 4 * "23" + 3 * "4567" + "8")
    for name in ("45d-Repeats-Nested-Alternatives", "45f-Repeats-InvalidEndings"):
        refused(partial(order_of, name), "do not fit together")
