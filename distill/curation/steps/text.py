"""The text of lyrics: characters as they were meant, rows that are sung, sections under names that
everybody knows.

    "corazÃ³n"  ->  "corazón"            certain wrong encodings, hidden and wide characters, HTML, NFC
    "作词：Somebody", "Am  G", an address   are not sung and are taken out
    [副歌], (Chorus x2), Refrain:          open a section called chorus; what it repeats is written out, if nothing is timed
    [Instrumental]                         a section without lines: nobody sings there

Parsing files is the sources' part; this step works on the song. Lines that have times keep them,
with their words and notes. Everything that was changed is said; text that spells a codec token is
text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from distill.curation.steps import Item
from distill.curation.steps import _characters as characters
from distill.curation.steps import _tags as tags
from distill.curation.steps import _unsung as unsung
from distill.errors import SettingsError
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


@dataclass(frozen=True)
class Settings:
    """expand: whether repeats ("x2", "(Chorus)") are written out where no line has times.

    instrumental: what becomes of a song in which nothing is left to sing.
    """

    expand: bool = True
    instrumental: Literal["keep", "set aside"] = "keep"

    def __post_init__(self) -> None:
        if self.instrumental not in ("keep", "set aside"):
            raise SettingsError(
                f"instrumental is {self.instrumental!r}; it must be one of keep, set aside"
            )

    def curate(self, item: Item) -> Item:
        """The item with clean lyrics. Lyrics that are too long to be a song's are set aside."""
        if (size := sum(len(line.text) for line in item.song.lines)) > LONGEST_LYRICS:
            return item.remark(
                STEP,
                "set aside",
                f"{size:,} characters of lyrics; a song has at most {LONGEST_LYRICS:,}",
            )
        cleaning = Cleaning()
        blocks = list(_blocks(item.song, cleaning))
        timed = any(
            line.start is not None or line.notes or line.words
            for block in blocks
            for line in block.lines
        )
        sections = (
            _written_out(blocks, cleaning)
            if self.expand and not timed
            else _as_they_stand(blocks, cleaning)
        )
        for section in sections:
            for line in section.lines:
                if longest := [word for word in words(line.text) if len(word) > LONGEST_WORD]:
                    text = f"{longest[0][:20]!r}... is one word of {len(longest[0])} letters"
                    return item.remark(STEP, "set aside", text)
        return self._said(item, tuple(sections), cleaning)

    def _said(self, item: Item, sections: tuple[Section, ...], cleaning: Cleaning) -> Item:
        if sections != item.song.sections:
            item = replace(item, song=replace(item.song, sections=sections))
        if changed := cleaning.changed():
            item = item.remark(STEP, "mended", "; ".join(changed))
        if noted := cleaning.noted():
            item = item.remark(STEP, "noted", "; ".join(noted))
        if not any(section.lines for section in sections):
            verdict: Literal["noted", "set aside"] = (
                "noted" if self.instrumental == "keep" else "set aside"
            )
            item = item.remark(STEP, verdict, "nothing to sing: no lyrics (instrumental)")
        return item


@dataclass
class Cleaning:
    """What was found on the way through one song's lyrics."""

    lines: Counter[str] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    taken_out: Counter[str] = field(default_factory=Counter)
    renamed: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)
    wrong: int = 0
    written_out: int = 0
    left_alone: int = 0

    def changed(self) -> list[str]:
        said = [
            f"{_lines(count)} re-encoded from {name}"
            for name, count in sorted(self.encodings.items())
        ]
        said += [
            f"{_lines(self.lines[kind])} {text}"
            for kind, text in CHANGES.items()
            if self.lines[kind]
        ]
        if self.taken_out:
            parts = ", ".join(f"{kind} {count}" for kind, count in sorted(self.taken_out.items()))
            said.append(f"rows taken out: {parts}")
        if self.renamed:
            pairs = [f"{old!r} -> {new}" for old, new in self.renamed.items()]
            said.append(
                "tags: "
                + ", ".join(pairs[:4])
                + (f" and {len(pairs) - 4} more" if len(pairs) > 4 else "")
            )
        if self.written_out:
            said.append(f"repeats written out: {_lines(self.written_out)}")
        return said

    def noted(self) -> list[str]:
        said = (
            [f"{_lines(self.wrong)} may be wrongly encoded, and no encoding is certain"]
            if self.wrong
            else []
        )
        if self.unknown:
            said.append(
                "sections that we do not know: "
                + ", ".join(repr(name) for name in list(self.unknown)[:4])
            )
        if self.missing:
            said.append(f"sections without words, here or before: {', '.join(self.missing)}")
        if marks := self.taken_out["marks"]:
            said.append(f"rows that say to repeat, but not what: {marks}, not written out")
        if self.left_alone:
            said.append(f"marks of repetition in timed lyrics: {self.left_alone}, sung as timed")
        return said


def _lines(count: int) -> str:
    return f"{count} line{'s' * (count != 1)}"


@dataclass
class Block:
    """A section on its way: its name, its lines (repeated ones once, with how often), how often it
    is sung."""

    name: str
    times: int = 1
    lines: list[Line] = field(default_factory=list)
    repeats: list[int] = field(default_factory=list)
    opened: bool = True  # by a tag, so that without lines it may stand for an earlier one


def _blocks(song: Song, cleaning: Cleaning) -> Iterator[Block]:
    """The song's sections, cut anew at the tags that stand among the lines."""
    count, place = len(song.lines), 0
    block = Block("verse", opened=False)
    for section in song.sections:
        if block.lines or block.opened:
            yield block
        block = Block(*_section_name(section.tag, cleaning), opened=not section.lines)
        for line in section.lines:
            edge = place < EDGE_ROWS or place >= count - EDGE_ROWS
            place += 1
            line = _clean(line, cleaning)
            reason = unsung.why(line.text, edge) or (
                "marks" if tags.REPEAT_ALONE.fullmatch(line.text) else ""
            )
            if reason:
                cleaning.taken_out[reason] += 1
                continue
            if (tag := tags.read(line.text)) or (tag := _verse_number(line)):
                yield block
                if line.text.removesuffix(tag.rest).strip("[]() ").lower() != tag.name:
                    cleaning.renamed[line.text.removesuffix(tag.rest).strip()] = tag.name
                block = Block(tag.name, tag.times)
                line = _without_tag(line, tag.rest)
            _add(block, _mended_row(line, cleaning))
    yield block


def _add(block: Block, line: Line) -> None:
    """The line, without a mark of repetition behind it, if there is anything to sing in it."""
    times = 1
    if found := tags.REPEAT_AT_END.search(line.text):
        times = tags.count(found)
        marks = [word for word in line.words if not tags.REPEAT_ALONE.fullmatch(word.text)]
        line = replace(line, text=line.text[: found.start()].strip(), words=tuple(marks))
    if words(line.text):
        block.lines.append(line)
        block.repeats.append(times)


def _section_name(tag: str, cleaning: Cleaning) -> tuple[str, int]:
    """A section's name as everybody knows it, and how often it is sung."""
    if found := tags.read(f"[{tag}]"):
        if tags.simple(tag) != found.name:
            cleaning.renamed[tag] = found.name
        return found.name, found.times
    name = tags.simple(characters.mend(tag, Counter()))[:32] or "verse"
    if words(tag):
        cleaning.unknown[tag] = None
    return name, 1


def _verse_number(line: Line) -> tags.Tag | None:
    """ "2. Through many dangers" opens a verse in typed lyrics, as in hymn books."""
    head, dot, rest = line.text.partition(". ")
    if line.start is None and dot and head.isdigit() and 0 < int(head) < 20:
        return tags.Tag("verse", rest=rest.strip())
    return None


def _clean(line: Line, cleaning: Cleaning) -> Line:
    """The line with every character as it was meant; counted once a line and kind."""
    changed: Counter[str] = Counter()
    encoding = characters.wrong_encoding(line.text)
    text = " ".join(characters.mend(line.text, changed).split())
    sung = [
        replace(word, text=" ".join(characters.mend(word.text, changed).split()))
        for word in line.words
    ]
    notes = [replace(note, text=characters.mend(note.text, changed)) for note in line.notes]
    cleaning.lines.update(set(changed))
    if changed["encoding"]:
        cleaning.encodings[encoding or "a wrong encoding"] += 1
    cleaning.wrong += characters.looks_wrong(text)
    return replace(
        line, text=text, words=tuple(word for word in sung if word.text), notes=tuple(notes)
    )


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
    marks = sum(block.times > 1 for block in blocks) + sum(
        times > 1 for block in blocks for times in block.repeats
    )
    cleaning.left_alone += marks
    return [
        Section(block.name, tuple(block.lines)) for block in blocks if block.lines or block.opened
    ]


def _written_out(blocks: list[Block], cleaning: Cleaning) -> list[Section]:
    """The blocks with their repeats; a tag without lines stands for the last section of its name,
    if it had words."""
    sections: list[Section] = []
    known: dict[str, tuple[Line, ...]] = {}
    size = 0
    for block in blocks:
        lines = tuple(
            line
            for line, times in zip(block.lines, block.repeats, strict=True)
            for _ in range(times)
        )
        once = len(block.lines)
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
        cleaning.written_out += block.times * len(lines) - once
    return sections
