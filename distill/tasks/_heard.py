"""A held-out line sung while a singer learns: its sound, its spectrogram, its notes in tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from distill import measures
from distill.errors import DistillError
from distill.folders import Json
from distill.singing import evaluate
from distill.singing.evaluate import Asked
from distill.singing.singer import Singer
from distill.singing.take import Take
from distill.songs import Note, Song, from_its_start
from distill.tasks._sound import Listening

SECONDS = 3.0  # as near to this as the held-out lines allow: long enough to be heard, soon sung
NAME = "held-out line"


class HeldOutLine:
    """One held-out line, sung after any step from the same seed; the sound goes to TensorBoard and
    to heard/<step>.wav."""

    def __init__(self, singer: Singer, songs: Sequence[Song], folder: Path, seed: int) -> None:
        self.singer, self.folder, self.seed = singer, folder, seed
        self.asked = _line(songs)
        self._board: Listening | None = None
        self._why: str | None = None  # it cannot be sung

    def __call__(self, step: int) -> Json | None:
        """line, seconds, sound (a file of the run), in_tune (share of its notes; None without notes
        or without the judge's extra). What keeps it from being sung stands in `why`, once."""
        if self._why is not None:
            return None
        line, song = self.asked.line, self.asked.song
        try:
            (take,) = self.singer.sing_lines([line], song.style, song.voice, self.seed)
        except DistillError as error:
            self._why = str(error)
            return {"line": line.text, "why": self._why}
        path = take.save(self.folder / "heard" / f"{step:08d}.wav")
        self._board = self._board or Listening(self.folder)
        self._board.write(step, {NAME: take.wave_CW}, take.sample_rate)
        figures = {"line": line.text, "seconds": round(take.seconds, 3)}
        sound = path.relative_to(self.folder).as_posix()
        return {**figures, "sound": sound, "in_tune": _in_tune(self.asked, take)}

    def draw(self, step: int, values: Mapping[str, float]) -> None:
        """Figures beside the sound."""
        self._board = self._board or Listening(self.folder)
        self._board.draw(step, values)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _line(songs: Sequence[Song]) -> Asked:
    """The line nearest to SECONDS, of those that have notes where there are any."""
    if any(line.notes for song in songs for line in song.lines):
        asked = evaluate.lines_of(songs)
        return min(asked, key=lambda each: abs((each.line.end or 0.0) - SECONDS))
    first = songs[0].lines[0]
    return Asked(from_its_start(first), songs[0], first.start or 0.0, first.end)


def _in_tune(asked: Asked, take: Take) -> float | None:
    """The share of the notes within 50 cents; None where there are none, or nobody to judge."""
    if not asked.line.notes:
        return None
    notes = tuple(Note(start, end, midi) for start, end, midi in take.notes)
    voice_CW = take.stems.get("vocals", take.wave_CW)
    line, language = replace(asked.line, notes=notes), asked.song.language
    sung = evaluate.performance(line, voice_CW, take.sample_rate, language)
    try:
        hits, count = measures.load("pitch").measure(sung, ())[0]["in_tune"]
    except DistillError:  # its extra is not installed
        return None
    return hits / count if count else None
