"""The text of lyrics: characters as they were meant, rows that are sung, sections by known names.

    "corazÃ³n"  ->  "corazón"            certain wrong encodings, hidden and wide characters, HTML
    "作词：Somebody", "Am  G", an address   are not sung and are taken out
    [副歌], (Chorus x2), Refrain:          open a section called chorus, written out if untimed
    [Instrumental]                         a section without lines: nobody sings there

Parsing files is the sources' part; this step works on the song. Lines that have times keep them,
with their words and notes. Every change is remarked; text that spells a codec token is text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from distill.config.ranges import Checked
from distill.curation.steps import Item, Verdict
from distill.curation.steps import _characters as characters
from distill.curation.steps import _tags as tags
from distill.curation.steps import _unsung as unsung
from distill.lyrics import LONGEST_LYRICS, LONGEST_WORD, words
from distill.songs import Line, Section, Song

STEP = "text"
CHANGES = {
    "HTML": "with HTML in them",
    "hidden characters": "with hidden characters",
    "spaces": "with odd spaces",
    "wide forms": "with full-width or fancy letters",
    "composed letters": "with letters in parts",
    "apostrophes": "with odd apostrophes",
    "chords": "with chords between the words",
    "ornaments": "with ornaments",
}
WORDLESS = ("instrumental", "intro", "outro", "ad-lib")  # sections that mostly have no lyrics
EDGE_ROWS = 3  # credits without a colon stand in the first or last rows
LAST_VERSE = 19  # a row that begins with a higher number is no numbered verse
LONGEST_NAME = 32  # characters of a section's name that we do not know
MOST_SHOWN = 4  # names in one remark


@dataclass(frozen=True)
class Settings(Checked):
    """expand: whether repeats ("x2", "(Chorus)") are written out where no line has times.
    instrumental: what becomes of a song in which nothing is left to sing."""

    expand: bool = True
    instrumental: Literal["keep", "set aside"] = "keep"

    def curate(self, item: Item) -> Item:
        """The item with clean lyrics. Lyrics that are too long to be a song's are set aside."""
        if (size := sum(len(line.text) for line in item.song.lines)) > LONGEST_LYRICS:
            text = f"{size:,} characters of lyrics; a song has at most {LONGEST_LYRICS:,}"
            return item.remark(STEP, "set aside", text)
        cleaning = Cleaning()
        blocks = list(_blocks(item.song, cleaning))
        lines = [line for block in blocks for line in block.lines]
        timed = any(line.start is not None or line.notes or line.words for line in lines)
        arrange = _written_out if self.expand and not timed else _as_they_stand
        sections = tuple(arrange(blocks, cleaning))
        for line in (line for section in sections for line in section.lines):
            if long := [word for word in words(line.text) if len(word) > LONGEST_WORD]:
                text = f"{long[0][:20]!r}... is one word of {len(long[0])} letters"
                return item.remark(STEP, "set aside", text)
        return self._remarked(item, sections, cleaning)

    def _remarked(self, item: Item, sections: tuple[Section, ...], cleaning: Cleaning) -> Item:
        if sections != item.song.sections:
            item = replace(item, song=replace(item.song, sections=sections))
        if changed := "; ".join(cleaning.changed()):
            item = item.remark(STEP, "mended", changed)
        if noted := "; ".join(cleaning.noted()):
            item = item.remark(STEP, "noted", noted)
        if not any(section.lines for section in sections):
            verdict: Verdict = "noted" if self.instrumental == "keep" else "set aside"
            item = item.remark(STEP, verdict, "nothing to sing: no lyrics (instrumental)")
        return item


@dataclass
class Cleaning:
    """What was changed, and what was noticed, on the way through one song's lyrics."""

    lines: Counter[str] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    taken_out: Counter[str] = field(default_factory=Counter)
    renamed: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)
    wrong: int = 0
    written_out: int = 0
    left_alone: int = 0

    def changed(self) -> Iterator[str]:
        """What was changed, in words."""
        for name, count in sorted(self.encodings.items()):
            yield f"{_lines(count)} re-encoded from {name}"
        for kind, text in CHANGES.items():
            if count := self.lines[kind]:
                yield f"{_lines(count)} {text}"
        if self.taken_out:
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.taken_out.items()))
            yield f"rows taken out: {kinds}"
        if self.renamed:
            pairs = [f"{old!r} -> {new}" for old, new in self.renamed.items()]
            more = f" and {len(pairs) - MOST_SHOWN} more" if len(pairs) > MOST_SHOWN else ""
            yield "tags: " + ", ".join(pairs[:MOST_SHOWN]) + more
        if self.written_out:
            yield f"repeats written out: {_lines(self.written_out)}"

    def noted(self) -> Iterator[str]:
        """What was noticed and left as it is, in words."""
        if self.wrong:
            yield f"{_lines(self.wrong)} may be wrongly encoded, and no encoding is certain"
        if self.unknown:
            names = ", ".join(repr(name) for name in list(self.unknown)[:MOST_SHOWN])
            yield f"sections that we do not know: {names}"
        if self.missing:
            yield f"sections without words, here or before: {', '.join(self.missing)}"
        if marks := self.taken_out["marks"]:
            yield f"rows that say to repeat, but not what: {marks}, not written out"
        if self.left_alone:
            yield f"marks of repetition in timed lyrics: {self.left_alone}, sung as timed"


def _lines(count: int) -> str:
    return f"{count} line{'s' * (count != 1)}"


@dataclass
class Block:
    """A section on its way: its lines (each once, with how often), and how often it is sung."""

    name: str
    times: int = 1
    lines: list[Line] = field(default_factory=list)
    repeats: list[int] = field(default_factory=list)
    opened: bool = True  # by a tag, so that without lines it may stand for an earlier one


def _blocks(song: Song, cleaning: Cleaning) -> Iterator[Block]:
    """The song's sections, cut anew at the tags that stand among the lines."""
    count, row = len(song.lines), 0
    block = Block("verse", opened=False)
    for section in song.sections:
        if block.lines or block.opened:
            yield block
        block = Block(*_section_name(section.tag, cleaning), opened=not section.lines)
        for line in section.lines:
            edge = not EDGE_ROWS <= row < count - EDGE_ROWS
            row += 1
            line = _clean(line, cleaning)
            mark = "marks" if tags.REPEAT_ALONE.fullmatch(line.text) else ""
            if reason := unsung.why(line.text, edge) or mark:
                cleaning.taken_out[reason] += 1
                continue
            if (tag := tags.read(line.text)) or (tag := _verse_number(line)):
                yield block
                written = line.text.removesuffix(tag.rest)
                if written.strip("[]() ").lower() != tag.name:
                    cleaning.renamed[written.strip()] = tag.name
                block = Block(tag.name, tag.times)
                line = _without_tag(line, tag.rest)
            _add(block, _mended_row(line, cleaning))
    yield block


def _add(block: Block, line: Line) -> None:
    """The line, without a mark of repetition behind it, if there is anything to sing in it."""
    times = 1
    if mark := tags.REPEAT_AT_END.search(line.text):
        times = tags.count(mark)
        sung = [word for word in line.words if not tags.REPEAT_ALONE.fullmatch(word.text)]
        line = replace(line, text=line.text[: mark.start()].strip(), words=tuple(sung))
    if words(line.text):
        block.lines.append(line)
        block.repeats.append(times)


def _section_name(name: str, cleaning: Cleaning) -> tuple[str, int]:
    """A section's name as everybody knows it, and how often it is sung."""
    if tag := tags.read(f"[{name}]"):
        if tags.simple(name) != tag.name:
            cleaning.renamed[name] = tag.name
        return tag.name, tag.times
    if words(name):
        cleaning.unknown[name] = None
    return tags.simple(characters.mend(name, Counter()))[:LONGEST_NAME] or "verse", 1


def _verse_number(line: Line) -> tags.Tag | None:
    """ "2. Through many dangers" opens a verse in typed lyrics, as in hymn books."""
    head, dot, rest = line.text.partition(". ")
    if line.start is None and dot and head.isdigit() and 0 < int(head) <= LAST_VERSE:
        return tags.Tag("verse", rest=rest.strip())
    return None


def _clean(line: Line, cleaning: Cleaning) -> Line:
    """The line with every character as it was meant; counted once a line and kind."""
    changed: Counter[str] = Counter()

    def spaced(text: str) -> str:
        return " ".join(characters.mend(text, changed).split())

    encoding = characters.wrong_encoding(line.text)
    text = spaced(line.text)
    sung = [replace(word, text=spaced(word.text)) for word in line.words]
    notes = [replace(note, text=characters.mend(note.text, changed)) for note in line.notes]
    cleaning.lines.update(set(changed))
    if changed["encoding"]:
        cleaning.encodings[encoding or "a wrong encoding"] += 1
    cleaning.wrong += characters.looks_wrong(text)
    sung = [word for word in sung if word.text]
    return replace(line, text=text, words=tuple(sung), notes=tuple(notes))


def _mended_row(line: Line, cleaning: Cleaning) -> Line:
    """The line without chords between its words and without ornaments around it."""
    for kind, step in (("chords", unsung.without_chords), ("ornaments", unsung.without_ornaments)):
        if (text := step(line.text)) != line.text:
            cleaning.lines[kind] += 1
            line = replace(line, text=text)
    return line


def _without_tag(line: Line, rest: str) -> Line:
    """The rest of a line behind its tag, with the words that are left of it."""
    count = len(rest.split())
    left = line.words[-count:] if count else ()
    same = " ".join(word.text for word in left).split() == rest.split()
    return replace(line, text=rest, words=left if same or not count else line.words)


def _as_they_stand(blocks: list[Block], cleaning: Cleaning) -> list[Section]:
    """The blocks as they are; marks of repetition say nothing where lines are timed."""
    marks = [times for block in blocks for times in (block.times, *block.repeats)]
    cleaning.left_alone += sum(times > 1 for times in marks)
    stand = [block for block in blocks if block.lines or block.opened]
    return [Section(block.name, tuple(block.lines)) for block in stand]


def _written_out(blocks: list[Block], cleaning: Cleaning) -> list[Section]:
    """The blocks with repeats; a tag without lines stands for the last such section with words."""
    sections: list[Section] = []
    known: dict[str, tuple[Line, ...]] = {}
    size = 0
    for block in blocks:
        repeats = zip(block.lines, block.repeats, strict=True)
        lines = tuple(line for line, times in repeats for _ in range(times))
        if lines:
            known[block.name] = lines
        elif block.opened:
            lines = known.get(block.name, ())
            if not lines:  # an instrumental, or words that are missing
                sections.append(Section(block.name, ()))
                if block.name not in WORDLESS:
                    cleaning.missing[block.name] = None
        size += block.times * sum(len(line.text) for line in lines)
        if not lines or size > LONGEST_LYRICS:
            continue
        sections += [Section(block.name, lines)] * block.times
        cleaning.written_out += block.times * len(lines) - len(block.lines)
    return sections
