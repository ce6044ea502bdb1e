"""Rights: a song is used only for what its licence allows, and whoever must be named is named.

`purpose` says what the result is for (see `licences`): private, research, publish or commercial.
Songs whose licence forbids that are set aside by name. Unknown is not permission: for anything that
leaves the house a song of unknown licence is set aside too. For the private purpose it may be kept
with a note (`unknown: note`); then the joint licence is "unknown", and nothing made from the songs
passes the gate of a hub.

Where a tool made a song's stems, its weights' licence counts as well. All songs together leave the
joint licence, with what asks for it, whom to credit and what cannot go together, as the trace of
the first song that is left. This is bookkeeping, not legal advice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from distill.config.ranges import Checked
from distill.curation.steps import Item
from distill.licences import TOOL, UNKNOWN, Purpose, allows, most_restrictive, named, named_so
from distill.songs import Song

STEP = "rights"
MOST = 100  # of a thousand songs' reasons nobody reads more


@dataclass(frozen=True)
class Settings(Checked):
    """purpose: what the result is for. unknown: what becomes of songs without a known licence when
    that is private. missing_credit: of songs whose licence asks for credit when nobody is named and
    the result leaves the house. conflicts: of songs under a licence that cannot go together with
    those of the songs before."""

    purpose: Purpose = "private"
    unknown: Literal["note", "set aside"] = "note"
    missing_credit: Literal["note", "set aside"] = "set aside"
    conflicts: Literal["note", "set aside"] = "note"

    def curate(self, item: Item) -> Item:
        """The item, set aside where its licence forbids the purpose."""
        song = item.song
        licence = named(song.licence)
        if reason := allows(song.licence, self.purpose):
            if licence is UNKNOWN and self.purpose == "private" and self.unknown == "note":
                text = f"{reason}; nothing made from it may leave the house"
                return item.remark(STEP, "noted", text)
            text = f"{reason} (purpose: {self.purpose}){_advice(song.licence)}"
            return item.remark(STEP, "set aside", text)
        if licence.credit and not song.credit.strip():
            missing = f"{licence.id} asks for credit, and nobody is named; write the song's credit"
            if self.purpose != "private" and self.missing_credit == "set aside":
                return item.remark(STEP, "set aside", missing)
            item = item.remark(STEP, "noted", missing)
        if licence.demand:
            item = item.remark(STEP, "noted", f"{licence.id}: {licence.demand}")
        return item

    def curate_all(self, items: Sequence[Item]) -> list[Item]:
        """All items; the first one left carries the joint licence of all as its trace."""
        items = [self._by_tools(item) for item in items]
        if self.conflicts == "set aside":
            items = self._without_conflicts(items)
        left = [item for item in items if not item.aside]
        if not left:
            return items
        used = {f"song: {item.song.id}": item.song.licence for item in left}
        for item in left:
            used |= _tools(item)
        joint = most_restrictive(used)
        credits = [_credit(item.song) for item in left if named(item.song.licence).credit]
        trace = {
            "purpose": self.purpose,
            **asdict(joint),
            "hub": joint.hub_id,
            "credits": list(dict.fromkeys(credits)),
            "because": joint.because[:MOST],
            "conflicts": joint.conflicts[:MOST],
        }
        first = left[0].leave(STEP, trace)
        if joint.conflicts and self.purpose != "private":
            first = first.remark(STEP, "noted", f"all songs together: {joint.conflicts[0]}")
        return [first if item is left[0] else item for item in items]

    def _by_tools(self, item: Item) -> Item:
        """The item, set aside where the tool that made its stems may not serve the purpose."""
        if self.purpose == "private" or item.aside:
            return item
        for tool, licence in _tools(item).items():
            if reason := allows(licence, self.purpose, TOOL):
                text = f"its stems, {tool}: {reason} (purpose: {self.purpose})"
                return item.remark(STEP, "set aside", text)
        return item

    def _without_conflicts(self, items: list[Item]) -> list[Item]:
        """In order, each song that no licence holds together with those before it is set aside."""
        licences: dict[str, str] = {}
        for number, item in enumerate(items):
            if item.aside or item.song.licence in licences.values():
                continue
            tried = {**licences, f"song: {item.song.id}": item.song.licence}
            if (conflicts := most_restrictive(tried).conflicts) and self.purpose != "private":
                items[number] = item.remark(STEP, "set aside", conflicts[0])
            else:
                licences = tried
        return items


def _tools(item: Item) -> dict[str, str]:
    """What made the song's stems, with its licence (see `separation`)."""
    fact = item.song.fact("stems")
    stems = fact.value if fact is not None and isinstance(fact.value, dict) else {}
    if "weights_licence" not in stems:
        return {}
    return {f"{TOOL}: {stems.get('weights')}": str(stems["weights_licence"])}


def _advice(licence: str) -> str:
    if named(licence) is not UNKNOWN:
        return ""
    if named_so(licence):
        return "; give an SPDX identifier such as CC-BY-4.0"
    return "; state the licence, `own` if it is yours"


def _credit(song: Song) -> str:
    """A line for the card: "Fantasma" by Los Rombos (CC-BY-SA; fantasma.mp3)."""
    inside = "; ".join(part for part in (named(song.licence).id, song.source) if part)
    return f"{song.credit.strip() or song.id} ({inside})"
