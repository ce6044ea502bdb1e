"""Lines and scores come in, takes and their list go out."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from distill import lyrics, songs
from distill.errors import FolderError, LyricsError, SongError
from distill.singing import takes
from distill.songs import Line, Note, Section, Song


@dataclass
class Take:
    notes: list[tuple[float, float, float | None]]

    def save(self, path: Path) -> None:
        Path(path).write_bytes(b"wave")

    def save_stems(self, folder: Path) -> None:
        (Path(folder) / "vocals.wav").parent.mkdir(parents=True)
        (Path(folder) / "vocals.wav").write_bytes(b"stem")


class Singer:
    """Sings what it is given, and remembers it."""

    languages = ("en", "es")

    def knows(self, language: str) -> bool:
        return language in self.languages

    def language_of(self, texts: list[str]) -> str:
        return "es" if "vida" in " ".join(texts) else "en"

    def sing_lines(self, lines: list[Line], *sampling: Any) -> list[Take]:
        self.lines, self.sampling = lines, sampling
        return [
            Take([(0.0, 0.2, None), *((n.start, n.end, n.midi) for n in line.notes)])
            for line in lines
        ]


def english(text: str, stated: str = "") -> str:
    return "en"


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("[verse]\nrow your boat\n\nmerrily\nrow your boat\n", encoding="utf-8")
    return path


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


SCORE = (
    {"line": "merrily", "notes": [[0.2, 0.4, 60], [0.4, 0.6, 62], [0.6, 0.8, 64], [0.8, 1.0, 65]]},
    {"line": "row your boat", "notes": [[0.2, 0.4, 60], [0.4, 0.6, 60], [0.6, 1.0, 60.5]]},
    {"line": "row your boat", "notes": [[0.2, 0.4, 67], [0.4, 0.6, 67], [0.6, 1.0, 67]]},
)


def test_one_row_a_take(tmp_path: Path, lines: Path) -> None:
    singer = Singer()
    listed = takes.sing_lines(
        singer, lines, tmp_path / "out", write(tmp_path / "s.jsonl", *SCORE), "folk", "high", 7, 0.5
    )  # type: ignore[arg-type]
    rows = [json.loads(row) for row in listed.read_text().splitlines()]
    assert [row["line"] for row in rows] == ["row your boat", "merrily", "row your boat"]
    assert [row["notes"] for row in rows] == [
        SCORE[1]["notes"],
        SCORE[0]["notes"],
        SCORE[2]["notes"],
    ]
    assert all((tmp_path / "out" / row["wav"]).is_file() for row in rows)
    assert all(set(row) == {"line", "wav", "notes", "language"} for row in rows)
    assert singer.sampling == ("folk", "high", 7, 0.5, ["en"] * 3)
    merrily = singer.lines[1]
    assert [note.text for note in merrily.notes][-1] == ""
    assert all(note.text for note in merrily.notes[:3])
    assert merrily.start == 0 and merrily.end == pytest.approx(1.4)


def test_without_a_score_the_line_alone_is_given(tmp_path: Path, lines: Path) -> None:
    singer = Singer()
    takes.sing_lines(singer, lines, tmp_path / "out")  # type: ignore[arg-type]
    assert singer.lines == [Line("row your boat"), Line("merrily"), Line("row your boat")]


def test_stems_go_into_a_folder_of_their_takes_number(tmp_path: Path, lines: Path) -> None:
    takes.sing_lines(Singer(), lines, tmp_path / "out", stems=tmp_path / "apart")  # type: ignore[arg-type]
    paths = sorted(
        str(path.relative_to(tmp_path / "apart")) for path in (tmp_path / "apart").rglob("*.wav")
    )
    assert paths == ["0000/vocals.wav", "0001/vocals.wav", "0002/vocals.wav"]
    assert not list((tmp_path / "out").rglob("vocals.wav"))


def test_a_manifest_is_a_score(tmp_path: Path) -> None:
    notes = (Note(10.2, 10.4, 60, "r O"), Note(10.4, 10.9, 62, ""))
    song = Song("a", (Section("verse", (Line("row", 10.0, 11.2, (), notes), Line("no notes"))),))
    songs.write_manifest(tmp_path / "m.jsonl", [song])
    ((line, language),) = takes.scored(["row"], tmp_path / "m.jsonl", english)
    assert line.start == 0 and line.end == pytest.approx(1.2) and language == "en"
    assert [(round(n.start, 6), round(n.end, 6), n.midi, n.text) for n in line.notes] == [
        (0.2, 0.4, 60, "r O"),
        (0.4, 0.9, 62, ""),
    ]
    with pytest.raises(SongError, match="no notes for the line 'no notes'"):
        takes.scored(["no notes"], tmp_path / "m.jsonl", english)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"line": "merrily", "notes": [[0, 1, 60]]}, "1 notes for 3 syllables"),
        ({"line": "row", "notes": [[1, 0.5, 60]]}, "overlap or end before"),
        ({"line": "row", "notes": [[0, 1, 60], [0.5, 2, 60]]}, "overlap or end before"),
        ({"line": "row", "notes": [[0, 1]]}, "write it so"),
        ({"line": "row", "notes": [[0, 1, None]]}, "write it so"),
        ({"notes": []}, "write it so"),
        ("row", "write it so"),
    ],
)
def test_a_bad_score_is_named(tmp_path: Path, row: object, says: str) -> None:
    with pytest.raises(SongError, match=says) as caught:
        takes.scored(["row"], write(tmp_path / "s.jsonl", row), english)
    assert "s.jsonl:1" in str(caught.value)


def test_bad_lines_are_refused_before_anything_is_sung(tmp_path: Path, lines: Path) -> None:
    with pytest.raises(LyricsError, match="cannot be read"):
        takes.read_lines(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n[verse]\n")
    with pytest.raises(LyricsError, match="no line to sing"):
        takes.read_lines(tmp_path / "empty.txt")
    (tmp_path / "marks.txt").write_text("row\n!!!\n")
    with pytest.raises(LyricsError, match="line 2"):
        takes.read_lines(tmp_path / "marks.txt")
    (tmp_path / "wave.txt").write_bytes(b"RIFF\xff\xfe")
    with pytest.raises(LyricsError, match="UTF-8"):
        takes.read_lines(tmp_path / "wave.txt")
    with pytest.raises(SongError, match="JSON lines"):
        takes.scored(["row"], lines, english)
    with pytest.raises(FolderError, match="cannot be made"):
        takes.sing_lines(Singer(), lines, lines / "out")  # type: ignore[arg-type]


# --- languages ------------------------------------------------------------------------------------
def test_a_score_in_another_language_is_read_in_it(tmp_path: Path) -> None:
    """By what its row says, by what the caller says, by the song of a manifest, or as guessed."""
    lines = tmp_path / "lines.txt"
    lines.write_text("la vida llora\n", encoding="utf-8")
    notes = [[0.4 * n, 0.4 * n + 0.4, 60] for n in range(5)]
    row = {"line": "la vida llora", "notes": notes}

    def sung(asked: dict[str, object], **more: str) -> tuple[list[str], list[str]]:
        singer, score = Singer(), write(tmp_path / "s.jsonl", asked)
        takes.sing_lines(singer, lines, tmp_path / "out", score, **more)  # type: ignore[arg-type]
        return [note.text for note in singer.lines[0].notes], singer.sampling[-1]

    spanish, english_texts = (lyrics.sing_texts("la vida llora", name) for name in ("es", "en"))
    assert spanish != english_texts
    assert sung(row) == (spanish, ["es"])
    assert sung(row | {"language": "en"}) == (english_texts, ["en"])
    assert sung(row | {"language": "en"}, language="es") == (spanish, ["es"])
    assert sung(row | {"language": "fr"}) == (spanish, ["es"])  # the singer knows no French
    listed = json.loads((tmp_path / "out" / "takes.jsonl").read_text())
    assert sung(listed | {"notes": notes}) == (spanish, ["es"])  # what it writes can be its score
    song = Song("a", (Section("", (Line("la vida", 0.0, 1.0, (), (Note(0, 1, 60, "l A"),)),)),))
    songs.write_manifest(tmp_path / "m.jsonl", [replace(song, language="es-MX")])

    def stated(text: str, language: str = "") -> str:
        return language

    assert takes.scored(["la vida"], tmp_path / "m.jsonl", stated)[0].language == "es-MX"


def test_lines_without_a_score_are_sung_in_their_language(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("la vida\nrow your boat\n", encoding="utf-8")
    singer = Singer()
    takes.sing_lines(singer, tmp_path / "lines.txt", tmp_path / "out")  # type: ignore[arg-type]
    assert singer.sampling[-1] == ["es", "en"]
