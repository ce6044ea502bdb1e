"""What a server makes of a merged singer: plain transformers `generate`, given only the header.

    python eval/plain.py NAME=MERGED [NAME=MERGED ...] [--lines N] [--temperature T]

No logits processor, no grammar, no code of ours between header and ids: the model must write the
pieces of text, the score and the frames by itself. Printed for each folder: lines whose text comes
complete and in order, frames that no codec could decode (of which an id is missing where the layout
has its place), lines that end by themselves, and word error of what can be decoded, beside the same
lines sung by our singer along a score (`python eval/run.py`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from run import singers_by_row
from transformers import AutoModelForCausalLM, AutoTokenizer

import distill
from distill import lyrics, measures
from distill.audio import stems
from distill.errors import DistillError
from distill.measures import Performance
from distill.singing.evaluate import Asked, lines_of, spread
from distill.songs import Line
from distill.sources.embedded import Settings as EmbeddedSongs
from distill.writing.prompts import JOIN, header
from distill.writing.vocabulary import AudioVocabulary

MOST_TOKENS = 900  # of a line, behind its header
SILENT_SAMPLES = 1600  # in place of a line of which no frame can be decoded


@dataclass
class Heard:
    """What the ids of one line amount to; codes: of each frame, by slot."""

    pieces: list[str] = field(default_factory=list)
    codes: list[dict[int, int]] = field(default_factory=list)
    ended: bool = False

    def frames(self, slots: int) -> list[list[int]]:
        """Those that have a code in every slot, and so can be decoded."""
        return [[frame[s] for s in range(slots)] for frame in self.codes if len(frame) == slots]


def hear(ids: Sequence[int], v: AudioVocabulary, decode: Callable[[list[int]], str]) -> Heard:
    """Read ids as a client without a grammar would.

    A step is one id of each of its slots, in order; all else breaks it. What follows a break, up to
    the next slot 0, belongs to the same broken step, and is lost to the frames it is of.
    """
    heard, text, astray, tail = Heard(), [], False, False
    owed: list[tuple[int, int]] = []  # (frame, slot) still to come in this step
    for id in ids:
        slot = next((s for s in range(v.format.slots) if id in v.span(s)), None)
        if owed and slot != owed[0][1]:
            owed, astray = [], True
        if slot is not None:
            if not owed:
                # something follows, so that was no tail but a step that had lost its slot 0
                if tail:
                    heard.codes.append({})
                tail = not astray and bool(heard.codes) and slot == v.order.first_late
                if not tail and not (slot > 0 and astray):
                    heard.codes.append({})
                astray = slot > 0 and not tail
                owed = [] if astray else _step(v, len(heard.codes), tail)
            if owed:
                frame, _ = owed.pop(0)
                heard.codes[frame][slot] = id - v.span(slot).start
        elif id in v.text_span:
            text.append(id)
        elif id in v.pitch_span:
            piece = decode(text).split(JOIN.strip())[0].strip()
            heard.pieces += [piece] if piece else []
            text = []
        elif id == v.end:
            heard.ended = True
            break
    return heard


def _step(v: AudioVocabulary, frames: int, tail: bool) -> list[tuple[int, int]]:
    """(frame, slot) of the step that begins the newest frame, or of the tail behind the last."""
    if not tail:
        slots = v.order.step(min(frames - 1, v.order.depth))
        return [(frames - 1 - v.order.delays[s], s) for s in slots]
    first = v.order.starts(frames)[-1]
    frame_N, slot_N = (column_N[first:].tolist() for column_N in v.order.order(frames))
    return list(zip(frame_N, slot_N, strict=True))


def generate(
    folder: Path, headers: list[list[int]], sing: int, temperature: float, longest: int
) -> list[list[int]]:
    """Ids behind each header, sampled by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    width = max(map(len, headers)) + 1
    rows = [[0] * (width - 1 - len(h)) + h + [sing] for h in headers]
    mask = [[0] * (width - 1 - len(h)) + [1] * (len(h) + 1) for h in headers]
    out = model.generate(
        input_ids=torch.tensor(rows), attention_mask=torch.tensor(mask), max_new_tokens=longest,
        do_sample=True, temperature=temperature, top_k=0, top_p=1.0, pad_token_id=0,
    )  # fmt: skip
    return [row[width:].tolist() for row in out]


def row_of(folder: Path, asked: list[Asked], temperature: float) -> dict[str, float]:
    """The figures of one merged folder."""
    singer = distill.load_singer(folder)
    v, student = singer.student.vocabulary, singer.student
    texts = [
        header(
            each.song.style,
            each.song.voice,
            [Line(each.line.text)],
            singer.about.writing,
            each.song.language,
        )
        for each in asked
    ]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = bool(student.opening)  # as the base's tokenizer writes it, and as it was trained
    headers = [tokenizer.encode(text, add_special_tokens=before) for text in texts]
    if headers != [student.opened(text)[:-1] for text in texts]:
        print(f"{folder}: its tokenizer cuts a header otherwise than the base's", file=sys.stderr)
    written = generate(folder, headers, v.sing, temperature, MOST_TOKENS)
    heard = [hear(ids, v, student.decode_text) for ids in written]
    complete, decoded, takes = 0, 0, []
    for each, line in zip(asked, heard, strict=True):
        complete += line.pieces == lyrics.sing_texts(each.line.text, each.song.language)
        frames = line.frames(v.format.slots)
        decoded += len(frames)
        if frames:
            wave_CW = singer.vocoder.decode(torch.tensor(frames))
        else:
            wave_CW = torch.zeros(v.format.channels, SILENT_SAMPLES)
        voice_CW = stems.apart(wave_CW, v.format).get("vocals", stems.mixed(wave_CW, v.format))
        words = tuple(lyrics.words(each.line.text))
        wave_W = voice_CW.mean(0).numpy()
        takes.append(Performance(each.line.text, words, (), wave_W, singer.vocoder.sample_rate))
    begun = sum(len(line.codes) for line in heard)
    judged = measures.judge({"plain": takes}, reference=None)["rows"]["plain"]
    return {
        "text complete": complete / len(asked),
        "undecodable frames": 1 - decoded / max(1, begun),
        "ends by itself": sum(line.ended for line in heard) / len(asked),
        "word error": judged["figures"]["word_error"]["value"],
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="[NAME=]MERGED")
    parser.add_argument("--lines", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.7)
    options = parser.parse_args()
    if options.lines < 1 or not options.temperature > 0:
        parser.error("--lines is 1 or more, --temperature above 0")
    try:
        folders = singers_by_row(options.folders)
        Console().print(table_of(folders, options.lines, options.temperature))
    except DistillError as error:
        print(f"eval: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def table_of(folders: dict[str, str], lines: int, temperature: float) -> Table:
    """A row of figures for each folder."""
    asked = spread(lines_of(EmbeddedSongs(split="held-out").load()), lines)
    title = f"plain generate on {len(asked)} held-out lines, temperature {temperature}; per cent"
    table = Table(title=title)
    rows = {name: row_of(Path(where), asked, temperature) for name, where in folders.items()}
    for column in ("folder", *next(iter(rows.values()))):
        table.add_column(column)
    for name, row in rows.items():
        table.add_row(name, *(f"{100 * value:.1f}" for value in row.values()))
    return table


if __name__ == "__main__":
    sys.exit(main())
