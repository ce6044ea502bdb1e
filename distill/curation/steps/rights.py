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

from distill.curation.steps import Item
from distill.errors import SettingsError
from distill.licences import (
    PURPOSES,
    TOOL,
    UNKNOWN,
    Purpose,
    allows,
    most_restrictive,
    named,
    named_so,
)

STEP = "rights"


@dataclass(frozen=True)
class Settings:
    """purpose: what the result is for. unknown: what becomes of songs without a known licence when
    that is private.

    missing_credit: what becomes of songs whose licence asks for credit when nobody is named and the
    result leaves the house. conflicts: what becomes of songs under a licence that cannot go
    together with those of the songs before.
    """

    purpose: Purpose = "private"
    unknown: Literal["note", "set aside"] = "note"
    missing_credit: Literal["note", "set aside"] = "set aside"
    conflicts: Literal["note", "set aside"] = "note"

    def __post_init__(self) -> None:
        for name, choices in (
            ("purpose", PURPOSES),
            ("unknown", ("note", "set aside")),
            ("missing_credit", ("note", "set aside")),
            ("conflicts", ("note", "set aside")),
        ):
            if getattr(self, name) not in choices:
                raise SettingsError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}"
                )

    def curate(self, item: Item) -> Item:
        """The item, set aside where its licence forbids the purpose."""
        song = item.song
        licence = named(song.licence)
        if reason := allows(song.licence, self.purpose):
            kept = licence is UNKNOWN and self.purpose == "private" and self.unknown == "note"
            end = (
                "; nothing made from it may leave the house"
                if kept
                else f" (purpose: {self.purpose}){_advice(song.licence)}"
            )
            return item.remark(STEP, "noted" if kept else "set aside", reason + end)
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
        left = [place for place, item in enumerate(items) if not item.aside]
        if not left:
            return items
        used = {f"song: {items[place].song.id}": items[place].song.licence for place in left}
        joint = most_restrictive(
            used | {k: v for place in left for k, v in _tools(items[place]).items()}
        )
        credits = [
            _credit(items[place]) for place in left if named(items[place].song.licence).credit
        ]
        trace = {
            "purpose": self.purpose,
            **asdict(joint),
            "hub": joint.hub_id,
            "credits": list(dict.fromkeys(credits)),
            "because": joint.because[:MOST],
            "conflicts": joint.conflicts[:MOST],
        }
        first = left[0]
        items[first] = items[first].leave(STEP, trace)
        if joint.conflicts and self.purpose != "private":
            items[first] = items[first].remark(
                STEP, "noted", f"all songs together: {joint.conflicts[0]}"
            )
        return items

    def _by_tools(self, item: Item) -> Item:
        """The item, set aside where the tool that made its stems may not be used for the purpose."""
        for what, licence in _tools(item).items():
            if (
                self.purpose != "private"
                and not item.aside
                and (reason := allows(licence, self.purpose, TOOL))
            ):
                item = item.remark(
                    STEP, "set aside", f"its stems, {what}: {reason} (purpose: {self.purpose})"
                )
        return item

    def _without_conflicts(self, items: list[Item]) -> list[Item]:
        """In order, each song that no licence holds together with those before it is set aside."""
        licences: dict[str, str] = {}
        for place, item in enumerate(items):
            if item.aside or item.song.licence in licences.values():
                continue
            tried = {**licences, f"song: {item.song.id}": item.song.licence}
            if (conflicts := most_restrictive(tried).conflicts) and self.purpose != "private":
                items[place] = item.remark(STEP, "set aside", conflicts[0])
            else:
                licences = tried
        return items


MOST = 100  # of a thousand songs' reasons nobody reads more


def _tools(item: Item) -> dict[str, str]:
    """What made the song's stems, with its licence (see `separation`)."""
    fact = item.song.fact("stems")
    said = fact.value if fact is not None and isinstance(fact.value, dict) else {}
    return (
        {f"{TOOL}: {said.get('weights')}": str(said["weights_licence"])}
        if "weights_licence" in said
        else {}
    )


def _advice(licence: str) -> str:
    if named(licence) is not UNKNOWN:
        return ""
    said = (
        "give an SPDX identifier such as CC-BY-4.0"
        if named_so(licence)
        else "state the licence, `own` if it is yours"
    )
    return f"; {said}"


def _credit(item: Item) -> str:
    """A line for the card: "Fantasma" by Los Rombos (CC-BY-SA; fantasma.mp3)."""
    song = item.song
    inside = "; ".join(part for part in (named(song.licence).id, song.source) if part)
    return f"{song.credit.strip() or song.id} ({inside})"
