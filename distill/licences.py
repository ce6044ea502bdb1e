"""What may be done with what: the licences of songs, bases, codecs, teachers and tools, as a table.

This is bookkeeping, not legal advice. It knows what licences say in broad strokes, compares that
with what a result is for, and names who has to be asked or thanked. It takes the careful reading
throughout: a model counts as adapted from the songs and teachers that it was trained on, though in
many places the law may see that otherwise. (Creative Commons calls this reading "overcompliance":
creativecommons.org/using-cc-licensed-works-for-ai-training-2.) And what is not known to be allowed
is not allowed: unknown is not permission.

    private     nothing leaves the person or the firm
    research    the result is passed on for study, and for nothing that earns money
    publish     the result is given to everybody, under the joint licence of all that went in
    commercial  the result earns money

Which Creative Commons licence may hold a work made from another follows CC's own charts ("Adapter's
license chart" in CC's FAQ; wiki.creativecommons.org/wiki/ShareAlike_compatibility): share-alike
goes on under the same or a later version, BY-SA 4.0 also under GPL-3.0 (that version alone: "Option
to comply with later versions") and the Free Art License 1.3, BY-NC-SA under nothing else, so BY-SA
and BY-NC-SA never go together. The GNU family follows
gnu.org/licenses/gpl-faq.html#AllCompatibility. Identifiers are SPDX's, and the hub's where SPDX has
none.

A tool is used, not built in: its share-alike and credit do not reach what comes out of it, its
limits on use do.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Purpose = Literal["private", "research", "publish", "commercial"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
TOOL = "tool"  # a use that is called "tool: NAME"; every other is built into the result
TEACHER = "teacher"


@dataclass(frozen=True)
class Licence:
    """What a licence says, in broad strokes.

    strict: 0 (asks nothing) and up. share: who may get what is made from it. commercial: whether it
    may earn money. adapt: whether anything may be made from it ("private": but not shared). credit:
    its author or notices must be named. same: what a work made from it may be under; () whatever
    keeps the rest. teaches: its outputs may train another model. demand: what else, in words.
    """

    id: str
    strict: int
    share: Literal["all", "study", "nobody"] = "all"
    commercial: bool = True
    adapt: Literal["yes", "private", "no"] = "yes"
    credit: bool = True
    same: tuple[str, ...] = ()
    teaches: bool = True
    demand: str = ""

    @property
    def hub_id(self) -> str:
        """How a model card on the hub spells it; "other" where the hub has no word for it."""
        name = re.sub(r"-(only|or-later)$", "", self.id.lower())
        name = re.sub(r"^(pddl|odc-by|odbl)-1\.0$", r"\1", name)
        return next((id for id in (name, f"{name}-4.0") if id in HUB), "other")


# huggingface.co/docs/hub/repositories-licenses, as far as the table below reaches
HUB = set(
    """apache-2.0 mit bsd bsd-2-clause bsd-3-clause isc zlib cc0-1.0 pddl unlicense wtfpl odc-by
    odbl cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
    cc-by-nc-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 afl-3.0 bsl-1.0 postgresql ncsa cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 mpl-2.0 gpl-2.0 gpl-3.0 lgpl-2.1 lgpl-3.0 agpl-3.0 openrail openrail++
    creativeml-openrail-m bigscience-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m gemma
    llama2 llama3 llama3.1 llama3.2 llama3.3 llama4""".split()
)

_AGPL_3 = ("AGPL-3.0-only", "AGPL-3.0-or-later")
_GPL_3 = ("GPL-3.0-only", "GPL-3.0-or-later", *_AGPL_3)
_GPL_2 = ("GPL-2.0-only", "GPL-2.0-or-later")
_LGPL_3 = ("LGPL-3.0-only", "LGPL-3.0-or-later")
_COPYLEFT = {  # a work made from the left one may be under the right ones
    "GPL-2.0-only": ("GPL-2.0-only",),
    "GPL-2.0-or-later": (*_GPL_2, *_GPL_3),
    "GPL-3.0-only": ("GPL-3.0-only", "AGPL-3.0-only"),
    "GPL-3.0-or-later": _GPL_3,
    "AGPL-3.0-only": ("AGPL-3.0-only",),
    "AGPL-3.0-or-later": _AGPL_3,
    "LGPL-2.1-only": ("LGPL-2.1-only", *_GPL_2, *_GPL_3),
    "LGPL-2.1-or-later": ("LGPL-2.1-only", "LGPL-2.1-or-later", *_LGPL_3, *_GPL_2, *_GPL_3),
    "LGPL-3.0-only": ("LGPL-3.0-only", "GPL-3.0-only", "AGPL-3.0-only"),
    "LGPL-3.0-or-later": (*_LGPL_3, *_GPL_3),
    "MPL-2.0": ("MPL-2.0", *_GPL_2, *_GPL_3),  # section 3.3, secondary licences
    "LAL-1.3": ("LAL-1.3", "CC-BY-SA-4.0"),
    "ODbL-1.0": ("ODbL-1.0",),
}
# what gnu.org calls incompatible though it asks for nothing of its own: patents; courts
_REFUSED = {
    "Apache-2.0": (*_GPL_2, "LGPL-2.1-only", "LGPL-2.1-or-later"),
    "AFL-3.0": (*_GPL_2, *_GPL_3, *_LGPL_3, "LGPL-2.1-only", "LGPL-2.1-or-later"),
}
_VERSIONS = ("1.0", "2.0", "2.1", "2.5", "3.0", "4.0")
_LLAMA = "the result's name begins with Llama and its card says Built with Llama"
_QWEN = "the card says Built with Qwen"
_ALONE = "its outputs improve no other model (section 1.b.v)"


def _creative_commons() -> Iterator[Licence]:
    """The six licences, in every version and without one, as people often leave it out."""
    stricter = {"BY": 3, "BY-SA": 5, "BY-NC": 7, "BY-NC-SA": 8, "BY-ND": 9, "BY-NC-ND": 10}
    for elements, strict in stricter.items():
        for version in ("", *_VERSIONS):
            yield Licence(
                f"CC-{elements}-{version}" if version else f"CC-{elements}",
                strict,
                commercial="NC" not in elements,
                # BY-ND before 4.0 "prohibits the creation of adaptations", 4.0 only their sharing
                # (CC's FAQ)
                adapt="yes" if "ND" not in elements else "private" if version == "4.0" else "no",
                same=_shared_alike(elements, version) if elements.endswith("SA") else (),
                demand="" if version else "its version is not stated; read as 4.0",
            )


def _shared_alike(elements: str, version: str) -> tuple[str, ...]:
    """What may hold a work made from a share-alike one."""
    # later versions are open to what is made from 2.0 on, not from 1.0
    later = ["1.0"] if version == "1.0" else [v for v in _VERSIONS if v >= (version or "4.0")]
    others = ("LAL-1.3", "GPL-3.0-only") if (elements, version) == ("BY-SA", "4.0") else ()
    return (*(f"CC-{elements}-{v}" for v in later), *others)


def _table() -> Iterator[Licence]:
    for id in "CC0-1.0 PDDL-1.0 Unlicense 0BSD WTFPL".split():
        yield Licence(id, 0, credit=False)
    yield Licence("public domain", 0, credit=False, demand="it may be protected in other countries")
    yield Licence("own", 1, credit=False, demand="whoever runs this holds the rights")
    for id in "MIT BSD BSD-2-Clause BSD-3-Clause ISC Zlib BSL-1.0 PostgreSQL NCSA AFL-3.0".split():
        yield Licence(id, 1)
    yield Licence("Apache-2.0", 2)
    # a model is one of the "Results" that the CDLA texts leave free, even where data share alike
    for id in "ODC-By-1.0 CDLA-Permissive-1.0 CDLA-Permissive-2.0 CDLA-Sharing-1.0".split():
        yield Licence(id, 3)
    yield from _creative_commons()
    rail = "openrail openrail++ creativeml-openrail-m bigscience-openrail-m "
    for id in (rail + "bigscience-bloom-rail-1.0 bigcode-openrail-m").split():
        yield Licence(id, 4, same=(id,), demand="its restrictions on use are passed on")
    for id, same in _COPYLEFT.items():
        # files or libraries 4, whole works 5, and works used over a network 6
        strict = 6 if id.startswith("AGPL") else 4 if id.startswith(("LGPL", "MPL")) else 5
        yield Licence(id, strict, same=same)
    # any model taught by Gemma's outputs is a "Model Derivative" (Gemma terms, section 1.1)
    yield Licence("gemma", 6, same=("gemma",), demand="Gemma's prohibited uses are passed on")
    yield Licence("llama2", 6, same=("llama2",), teaches=False, demand=_ALONE)
    yield Licence("llama3", 6, same=("llama3",), teaches=False, demand=f"{_LLAMA}; {_ALONE}")
    for id in "llama3.1 llama3.2 llama3.3 llama4".split():
        yield Licence(id, 6, same=(id,), demand=_LLAMA)
    yield Licence("qwen", 6, same=("qwen",), demand=_QWEN)
    yield Licence("qwen-research", 8, commercial=False, same=("qwen-research",), demand=_QWEN)
    yield Licence("research only", 11, share="study", commercial=False, same=("research only",))
    yield Licence("proprietary", 12, share="nobody", commercial=False, adapt="no")
    yield Licence("unknown", 13, share="nobody", commercial=False, adapt="no")


# how people write an id, behind it
_WRITTEN = """
    CC0-1.0: cc-0 cc-0-1.0 | PDDL-1.0: pddl | public domain: pd publicdomain cc-pddc pdm
    Apache-2.0: apache apache-2 | MIT: expat | BSD: bsd-license | BSD-3-Clause: new-bsd
    ODC-By-1.0: odc-by | ODbL-1.0: odbl | MPL-2.0: mpl-2 mpl | LAL-1.3: fal-1.3 free-art-1.3
    llama2: llama-2 llama-2-community | llama3: llama-3 llama-3-community meta-llama-3-community
    llama3.1: llama-3.1 llama-3.1-community | llama3.2: llama-3.2 llama-3.2-community
    llama3.3: llama-3.3 llama-3.3-community | llama4: llama-4 llama-4-community
    gemma: gemma-terms-of-use | qwen: tongyi-qianwen qwen-community | own: own-work my-own mine-own
    research only: academic academic-only research
    proprietary: all-rights-reserved copyrighted none
"""


def _aliases() -> Iterator[tuple[str, str]]:
    """(how it is written, id): lower case, with dashes for all else."""
    for id in LICENCES:
        yield re.sub(r"[^a-z0-9.+]+", "-", id.lower()), id
    for row in re.split(r"[\n|]", _WRITTEN.strip()):
        id, _, names = row.strip().partition(": ")
        yield from ((name, id) for name in names.split())
    for id in ("GPL-2.0", "GPL-3.0", "AGPL-3.0", "LGPL-2.1", "LGPL-3.0"):
        for name in (id.lower(), id.lower().removesuffix(".0")):
            for dash in ("-", "v", "-v"):
                spelled = re.sub(r"-(?=\d)", dash, name)
                yield spelled, f"{id}-only"
                for later in ("+", "-or-later", "-+"):
                    yield spelled + later, f"{id}-or-later"


LICENCES = {licence.id: licence for licence in _table()}
UNKNOWN = LICENCES["unknown"]
_ALIASES = dict(_aliases())


@functools.lru_cache(maxsize=4096)
def named(text: str) -> Licence:
    """The licence of an SPDX or hub id, a CC address or a usual name; `UNKNOWN` for any other text.

    "cc by sa 4.0", "https://creativecommons.org/licenses/by-sa/4.0/" and "Creative Commons
    Attribution-ShareAlike 4.0 International" are one; words on top ("but ask me") make it unknown.
    """
    plain = re.sub(r"[^a-z0-9.+©]+", "-", text.lower().strip()).strip("-.")
    if id := _ALIASES.get(plain) or _cc(plain):
        return LICENCES[id]
    short = re.sub(r"general-public-licen[cs]e", "gpl", plain)
    short = short.replace("lesser-gpl", "lgpl").replace("affero-gpl", "agpl")
    short = re.sub(r"\b(the|gnu|licen[cs]e|version|agreement)\b", "-", short)
    if id := _ALIASES.get(re.sub(r"-+", "-", short).strip("-")):
        return LICENCES[id]
    if re.match(r"(©|copyright\b|c-(19|20)\d\d\b)", plain) or plain.endswith("all-rights-reserved"):
        return LICENCES["proprietary"]
    return UNKNOWN


_CC_WORDS = {
    "by": "BY", "attribution": "BY", "nc": "NC", "noncommercial": "NC", "nd": "ND",
    "noderivatives": "ND", "noderivs": "ND", "sa": "SA", "sharealike": "SA", "zero": "0",
    "cc0": "0", "mark": "PDM", "pdm": "PDM",
}  # fmt: skip
# countries: that their ports of one version are compatible, CC's licences say themselves (2.0 on)
_CC_NOISE = set(
    """cc creative commons creativecommons.org www. http https licenses license licence deed
    legalcode publicdomain public domain dedication universal international unported generic intl
    the en deed.en deed.de igo us uk de at fr es it jp nl ca au""".split()
)


def _cc(plain: str) -> str | None:
    """The id of a Creative Commons licence, or None where it is none of the known ones."""
    if not re.match(
        r"cc|https?-creativecommons|(www\.)?creativecommons|creative-commons|attribution\b", plain
    ):
        return None
    joined = re.sub(r"non-commercial", "noncommercial", plain)
    joined = re.sub(r"no-?deriv\w*", "noderivs", re.sub(r"share-?alike", "sharealike", joined))
    elements, version = set(), ""
    for word in joined.split("-"):
        if word in _CC_WORDS:
            elements.add(_CC_WORDS[word])
        elif re.fullmatch(r"v?\d\.\d", word) and not version:
            version = word.removeprefix("v")
        elif word not in _CC_NOISE:
            return None
    if elements in ({"0"}, {"PDM"}) and version in ("", "1.0"):
        return "CC0-1.0" if elements == {"0"} else "public domain"
    ordered = [element for element in ("BY", "NC", "ND", "SA") if element in elements]
    id = "-".join(["CC", *ordered, *([version] * bool(version))])
    return id if id in LICENCES and not elements & {"0", "PDM"} else None


def allows(
    licence: str, purpose: Purpose, what: str = "song", result: str | None = None
) -> str | None:
    """Why something under this licence may not be used so; None where nothing speaks against it.
    what: "song", "base", "codec", "teacher", "tool: NAME"; result: what is made is under it."""
    terms, role = named(licence), _role(what)
    if terms is UNKNOWN:
        quoted = f"{licence.strip()[:40]!r} is no licence that is known"
        reason = quoted if named_so(licence) else "the licence is unknown"
        return f"{reason}, and unknown is not permission"
    if terms.id == "proprietary":
        return "all rights are reserved"
    if purpose == "commercial" and not terms.commercial:
        return f"{terms.id} forbids commercial use"
    if role == TOOL:
        return None
    if terms.adapt == "no":
        return f"{terms.id} forbids that anything is made from it"
    if terms.adapt == "private" and purpose != "private":
        return f"{terms.id} forbids sharing what is made from it"
    if purpose in ("publish", "commercial") and terms.share != "all":
        return f"{terms.id} allows study only"
    if role == TEACHER and not terms.teaches and named(result or "").id != terms.id:
        return f"{terms.id} forbids improving other models with its outputs"
    return None


def _role(what: str) -> str:
    """What plays which part: "tool: NAME" is a "tool"."""
    return what.partition(":")[0]


def named_so(licence: str) -> bool:
    """Whether somebody wrote something other than nothing and "unknown"."""
    return licence.strip().lower() not in ("", "unknown", "none", "other", "?")


def may_carry(result: str, part: str, what: str = "song") -> str | None:
    """Why a work under `result` may not be made from a part under `part`; None where it may."""
    work, terms = named(result), named(part)
    if reason := allows(part, "publish", what, result):
        return reason
    if _role(what) == TOOL:
        return None
    if work.share != "all" or work.adapt != "yes":
        return f"nothing can be shared under {work.id}"
    if terms.same and work.id not in terms.same:
        wanted = "the same" if terms.same == (terms.id,) else " or ".join(terms.same[:2])
        return f"{terms.id} asks for {wanted}, not {work.id}"
    if not terms.commercial and work.commercial:
        return f"{work.id} would allow the commercial use that {terms.id} forbids"
    if terms.credit and not work.credit:
        return f"{work.id} would drop the credit that {terms.id} asks for"
    if work.id in _REFUSED.get(terms.id, ()):
        source = "gnu.org/licenses/license-list.html"
        return f"{work.id} cannot hold what is under {terms.id} ({source})"
    return None


@dataclass(frozen=True)
class Joint:
    """The most restrictive licence of everything used; where there are `conflicts`, the strictest.

    because: what asks for it. credits: whom to name (with licence). demands: what else is asked.
    conflicts: why nothing made from all of these may be shared.
    """

    licence: str
    because: tuple[str, ...] = ()
    credits: tuple[str, ...] = ()
    demands: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()

    @property
    def hub_id(self) -> str:
        return LICENCES[self.licence].hub_id


Parts = Mapping[tuple[str, str], str]  # (licence, role) -> what is used so


def most_restrictive(used: Mapping[str, str]) -> Joint:
    """The joint licence of {"song: x": "CC-BY-4.0", "tool: espeak-ng": "GPL-3.0, MIT", ...}.

    The least strict one that asks for as much as each part and may hold a work made from all;
    CC0-1.0 of nothing.
    """
    listed = ((what, texts or "unknown") for what, texts in used.items())
    uses = [(what, text.strip()) for what, texts in listed for text in texts.split(",")]
    built = [(what, text) for what, text in uses if _role(what) != TOOL]
    limits = {(text, _role(what)): what for what, text in uses if _role(what) == TOOL}
    ids_of = {text: text if named(text) is UNKNOWN else named(text).id for _, text in built}
    parts = {(ids_of[text], _role(what)): what for what, text in built}
    ids = {named(text).id for text, _ in parts} or {"CC0-1.0"}
    strictest = max((LICENCES[id] for id in ids), key=lambda part: (part.strict, part.id))
    wider = ids.union(*(LICENCES[id].same for id in ids), ("CC-BY-4.0", "CC-BY-NC-4.0"))
    chosen = _least_strict(parts, wider, strictest.strict, ids)
    conflicts = [] if chosen else _conflicts(parts, wider)
    limited = ((what, allows(text, "publish", role)) for (text, role), what in limits.items())
    conflicts += [f"{what}: {why}" for what, why in limited if why]
    final = chosen or strictest
    terms = [(what, text, named(text)) for (text, _), what in parts.items()]
    because = [f"{what} is under {text}" for what, text, part in terms if _forces(final, part)]
    demands = [f"{part.id}: {part.demand}" for _, _, part in terms if part.demand]
    owed = [(what, named(text)) for what, text in built if named(text) is not UNKNOWN]
    credits = [f"{what} ({part.id})" for what, part in owed if part.credit]
    return Joint(final.id, _once(because), tuple(credits), _once(demands), _once(conflicts))


def _once(lines: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))


def _least_strict(parts: Parts, candidates: set[str], least: int, used: set[str]) -> Licence | None:
    """The least strict candidate, from `least` on, that may hold a work made from all parts."""
    enough = (LICENCES[id] for id in candidates if LICENCES[id].strict >= least)
    for licence in sorted(enough, key=lambda licence: _order(licence, used)):
        if all(may_carry(licence.id, text, role) is None for text, role in parts):
            return licence
    return None


def _order(licence: Licence, used: set[str]) -> tuple[bool, int, int, float, str]:
    """First those with a version, then the least strict, used or known to the hub, newest."""
    version = re.search(r"(\d\.\d)(?:-only|-or-later)?$", licence.id)
    unversioned = licence.id.startswith("CC-") and not version
    usual = 2 if licence.hub_id == "other" else 0 if licence.id in used else 1
    newest = -float(version.group(1)) if version else 0.0
    return unversioned, licence.strict, usual, newest, licence.id


def _forces(final: Licence, part: Licence) -> bool:
    """Whether this part is a reason for the joint licence."""
    no_money = not part.commercial and not final.commercial
    return part.strict == final.strict or bool(part.same) or no_money


def _conflicts(parts: Parts, candidates: set[str]) -> list[str]:
    """Parts that nothing may be made from, else the pairs that no licence holds together."""

    def held(*uses: tuple[str, str]) -> bool:
        return any(all(may_carry(id, *use) is None for use in uses) for id in candidates)

    alone = []
    for (text, role), what in parts.items():
        if not held((text, role)):
            reason = allows(text, "publish", role)
            alone.append(f"{what}: {reason or f'no licence that is known holds {text}'}")
    if alone:
        return alone
    nothing = "no licence that is known holds"
    apart = [(a, b) for a in parts for b in parts if a < b and not held(a, b)]
    pairs = [f"{parts[a]} ({a[0]}) and {parts[b]} ({b[0]}): {nothing} both" for a, b in apart]
    return pairs or [f"{nothing} all of: {', '.join(sorted({text for text, _ in parts}))}"]
