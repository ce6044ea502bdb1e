"""What may be done with what: spellings, purposes, and the licence of a work made from others."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from distill.curation.steps import Item
from distill.curation.steps.rights import Settings
from distill.errors import SettingsError
from distill.licences import LICENCES, PURPOSES, allows, may_carry, most_restrictive, named
from distill.songs import Fact, Line, Section, Song

CARRIED = {  # CC's chart of adapter's licences: what a work made from the left one may be under
    "CC0-1.0": "CC0-1.0 CC-BY-4.0 CC-BY-SA-4.0 CC-BY-NC-4.0 CC-BY-NC-SA-4.0",
    "CC-BY-4.0": "CC-BY-4.0 CC-BY-SA-4.0 CC-BY-NC-4.0 CC-BY-NC-SA-4.0",
    "CC-BY-SA-4.0": "CC-BY-SA-4.0",
    "CC-BY-NC-4.0": "CC-BY-NC-4.0 CC-BY-NC-SA-4.0",
    "CC-BY-NC-SA-4.0": "CC-BY-NC-SA-4.0",
    "CC-BY-ND-4.0": "",
    "CC-BY-NC-ND-4.0": "",
}


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("cc by sa 4.0", "CC-BY-SA-4.0"),
        ("CC BY-SA", "CC-BY-SA"),
        ("https://creativecommons.org/licenses/by-nc-sa/3.0/us/", "CC-BY-NC-SA-3.0"),
        (
            "Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International",
            "CC-BY-NC-ND-4.0",
        ),
        ("Attribution-ShareAlike 3.0 Unported", "CC-BY-SA-3.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("CC0 1.0 Universal", "CC0-1.0"),
        ("Creative Commons Zero v1.0 Universal", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "public domain"),
        ("CC-BY-SA-3.0-AT", "CC-BY-SA-3.0"),
        ("CC-BY-NC-SA-3.0-IGO", "CC-BY-NC-SA-3.0"),
        ("https://creativecommons.org/licenses/by-sa/3.0/de/deed.de", "CC-BY-SA-3.0"),
        ("CC BY 4.0, but ask me", "unknown"),
        ("CC zero tolerance", "unknown"),
        ("CC0 BY", "unknown"),
        ("CC 0 2.0", "unknown"),
        ("Creative Commons CC0, but not to train on", "unknown"),
        ("CC Public Domain Mark, but not to train on", "unknown"),
        ("CC Sampling+", "unknown"),
        ("CC BY-SA-ND 4.0", "unknown"),
        ("CC BY 9.0", "unknown"),
        ("cc", "unknown"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("The MIT License", "MIT"),
        ("GNU General Public License v3 or later", "GPL-3.0-or-later"),
        ("gpl-3.0", "GPL-3.0-only"),
        ("LGPLv2.1+", "LGPL-2.1-or-later"),
        ("Llama 3.1 Community License Agreement", "llama3.1"),
        ("Public Domain", "public domain"),
        ("(c) 2001 Somebody", "proprietary"),
        ("All rights reserved.", "proprietary"),
        ("free to use, trust me", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_licence_is_known_by_its_usual_spellings(text: str, id: str) -> None:
    assert named(text).id == id


def test_every_licence_is_known_by_its_own_name_and_its_name_on_the_hub() -> None:
    for id, licence in LICENCES.items():
        assert named(id) is licence and named(id.upper()) is licence
        assert all(other in LICENCES for other in licence.same), (
            f"{id} points to a licence that is not there"
        )
        if licence.hub_id != "other" and id not in (
            "CC-BY",
            "CC-BY-SA",
            "CC-BY-NC",
            "CC-BY-NC-SA",
            "CC-BY-ND",
            "CC-BY-NC-ND",
        ):
            back = named(licence.hub_id)
            assert back.strict == licence.strict and back.commercial == licence.commercial


@pytest.mark.parametrize("part", CARRIED)
@pytest.mark.parametrize("whole", CARRIED)
def test_the_charts_of_creative_commons(part: str, whole: str) -> None:
    assert (may_carry(whole, part) is None) == (whole in CARRIED[part].split())


@pytest.mark.parametrize(
    ("part", "whole", "may"),
    [
        ("CC-BY-SA-3.0", "CC-BY-SA-4.0", True),
        ("CC-BY-SA-4.0", "CC-BY-SA-3.0", False),
        ("CC-BY-SA-1.0", "CC-BY-SA-4.0", False),
        ("CC-BY-SA-4.0", "GPL-3.0-only", True),
        # CC has approved version 3, nobody a version to come
        ("CC-BY-SA-4.0", "GPL-3.0-or-later", False),
        ("CC-BY-SA-4.0", "AGPL-3.0-only", False),
        ("CC-BY-SA", "GPL-3.0-only", False),  # it may be 3.0
        ("CC-BY-NC-SA-4.0", "CC-BY-SA-4.0", False),
        ("AFL-3.0", "GPL-3.0-only", False),
        ("AFL-3.0", "Apache-2.0", True),
        ("GPL-3.0-only", "CC-BY-SA-4.0", False),
        ("CC-BY-SA-3.0", "GPL-3.0-only", False),
        ("GPL-2.0-only", "GPL-3.0-only", False),
        ("GPL-2.0-or-later", "GPL-3.0-only", True),
        ("Apache-2.0", "GPL-2.0-only", False),
        ("Apache-2.0", "GPL-3.0-only", True),
        ("GPL-3.0-only", "AGPL-3.0-only", True),
        ("CC-BY-4.0", "CC0-1.0", False),
        ("CC-BY-4.0", "apache-2.0", True),
        ("gemma", "apache-2.0", False),
        ("own", "CC0-1.0", True),
    ],
)
def test_what_may_be_under_what(part: str, whole: str, may: bool) -> None:
    assert (may_carry(whole, part) is None) == may


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("CC0-1.0", "private research publish commercial"),
        ("own", "private research publish commercial"),
        ("CC-BY-SA-4.0", "private research publish commercial"),
        ("CC-BY-NC-4.0", "private research publish"),
        ("qwen-research", "private research publish"),
        ("CC-BY-ND-4.0", "private"),
        ("CC-BY-ND-3.0", ""),
        ("academic only", "private research"),
        ("proprietary", ""),
        ("unknown", ""),
        ("something else", ""),
    ],
)
def test_purposes(licence: str, allowed: str) -> None:
    assert [purpose for purpose in PURPOSES if allows(licence, purpose) is None] == allowed.split()


def test_a_teacher_whose_terms_forbid_it_is_refused_by_name() -> None:
    assert "forbids improving other models" in (
        allows("llama3", "publish", "teacher: x", "apache-2.0") or ""
    )
    assert allows("llama3", "publish", "teacher: x", "llama3") is None
    assert allows("llama3.1", "publish", "teacher: x", "apache-2.0") is None
    joint = most_restrictive({"base": "llama3.1", "teacher: old": "llama3"})
    assert joint.conflicts and "teacher: old" in joint.conflicts[0]


def test_a_tool_limits_use_and_nothing_else() -> None:
    assert allows("GPL-3.0", "commercial", "tool: espeak-ng") is None
    assert (
        allows("CC-BY-NC-4.0", "commercial", "tool: separator")
        == "CC-BY-NC-4.0 forbids commercial use"
    )
    joint = most_restrictive({"song": "CC0", "tool: espeak-ng": "GPL-3.0"})
    assert joint.licence == "CC0-1.0" and not joint.credits and not joint.conflicts
    assert most_restrictive({"song": "CC0", "tool: thing": "unknown"}).conflicts


@pytest.mark.parametrize(
    ("used", "licence"),
    [
        ({}, "CC0-1.0"),
        ({"song": "own"}, "own"),
        ({"base": "apache-2.0", "codec": "mit", "song": "cc0-1.0"}, "Apache-2.0"),
        ({"base": "apache-2.0", "song": "mit, cc-by-3.0"}, "CC-BY-3.0"),
        ({"base": "apache-2.0", "song": "CC-BY-NC-4.0"}, "CC-BY-NC-4.0"),
        ({"song": "cc-by-nc-4.0", "teacher": "cc-by-nc-sa-4.0"}, "CC-BY-NC-SA-4.0"),
        ({"song: a": "CC BY-SA", "song: b": "CC BY"}, "CC-BY-SA-4.0"),
        ({"song: a": "CC-BY-SA-2.0", "song: b": "CC-BY-SA-3.0"}, "CC-BY-SA-3.0"),
        ({"song": "CC-BY-SA-4.0", "base": "GPL-3.0"}, "GPL-3.0-only"),
        ({"song": "CC-BY-SA-4.0", "base": "GPL-3.0-or-later"}, "GPL-3.0-only"),
        ({"base": "GPL-2.0+", "codec": "apache-2.0"}, "GPL-3.0-only"),
        ({"base": "gemma", "song": "cc0-1.0"}, "gemma"),
    ],
)
def test_the_joint_licence(used: dict[str, str], licence: str) -> None:
    joint = most_restrictive(used)
    assert joint.licence == licence and not joint.conflicts
    for what, texts in used.items():
        assert all(may_carry(licence, text, what) is None for text in texts.split(","))


@pytest.mark.parametrize(
    "used",
    [
        {"song: a": "CC-BY-SA-4.0", "song: b": "CC-BY-NC-SA-4.0"},
        {"song: a": "CC-BY-SA-4.0", "song: b": "CC-BY-NC-4.0"},
        {"song: a": "CC-BY-ND-4.0", "base": "mit"},
        {"song: a": "unknown", "base": "mit"},
        {"base": "gemma", "song: a": "CC-BY-NC-4.0"},
        {"base": "gemma", "teacher": "llama3.2"},
        {"base": "gpl-2.0", "codec": "apache-2.0"},
    ],
)
def test_what_cannot_go_together_is_said_by_name(used: dict[str, str]) -> None:
    joint = most_restrictive(used)
    assert joint.conflicts
    assert any(what in conflict for what in used for conflict in joint.conflicts)
    # the strictest, though it holds nothing
    assert joint.licence in {named(text).id for text in used.values()}


def test_the_joint_licence_depends_on_no_order_and_agrees_with_itself() -> None:
    some = [
        "CC0-1.0",
        "MIT",
        "Apache-2.0",
        "CC-BY-3.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA",
        "CC-BY-NC-4.0",
        "CC-BY-NC-SA-4.0",
        "own",
    ]
    for three in itertools.combinations(some, 3):
        licences = {
            (most_restrictive({f"song: {n}": id for n, id in enumerate(order)}).licence)
            for order in itertools.permutations(three)
        }
        assert len(licences) == 1
        joint = most_restrictive({f"song: {n}": id for n, id in enumerate(three)})
        if not joint.conflicts:
            assert all(may_carry(joint.licence, id) is None for id in three)


# --- the step -------------------------------------------------------------------------------------


def song(id: str, licence: str, credit: str = "") -> Item:
    return Item(
        Song(
            id,
            (Section("verse", (Line("row row"),)),),
            licence=licence,
            credit=credit,
            source=f"{id}.mp3",
        )
    )


def test_unknown_is_not_permission() -> None:
    private = Settings().curate(song("x", "unknown"))
    assert not private.aside
    assert "nothing made from it may leave the house" in private.remarks[0].text
    for purpose in PURPOSES[1:]:
        item = Settings(purpose=purpose).curate(song("x", "unknown"))
        assert item.aside and "unknown is not permission" in item.remarks[0].text
    assert Settings(unknown="set aside").curate(song("x", "")).aside
    assert Settings().curate(song("x", "proprietary")).aside  # somebody said no


def test_songs_whose_licence_forbids_the_purpose_are_set_aside_with_the_reason() -> None:
    item = Settings(purpose="commercial").curate(song("x", "CC BY-NC 4.0", "A. Body"))
    assert item.remarks[0].text == "CC-BY-NC-4.0 forbids commercial use (purpose: commercial)"
    assert not Settings(purpose="publish").curate(song("x", "CC BY-NC 4.0", "A. Body")).aside


def test_credit_that_is_asked_for_must_be_there() -> None:
    assert Settings(purpose="publish").curate(song("x", "CC-BY-4.0")).aside
    assert (
        not Settings(purpose="publish", missing_credit="note").curate(song("x", "CC-BY-4.0")).aside
    )
    assert not Settings(purpose="publish").curate(song("x", "CC0-1.0")).remarks


def test_all_songs_leave_the_joint_licence_and_whom_to_credit() -> None:
    items = [
        song("a", "unknown"),
        song("b", "CC-BY-SA", '"B" by Bee'),
        song("c", "CC0"),
        song("d", "CC-BY-3.0", "Dee"),
    ]
    step = Settings(purpose="publish")
    done = step.curate_all([step.curate(item) for item in items])
    assert [item.aside for item in done] == [True, False, False, False]
    trace = done[1].traces["rights"]
    assert trace["licence"] == "CC-BY-SA-4.0"
    assert trace["hub"] == "cc-by-sa-4.0"
    assert not trace["conflicts"]
    assert trace["credits"] == ['"B" by Bee (CC-BY-SA; b.mp3)', "Dee (CC-BY-3.0; d.mp3)"]
    assert not any("rights" in item.traces for item in done[2:])


def test_the_tool_that_made_the_stems_counts() -> None:
    def separated(id: str, licence: str) -> Item:
        stems = {"by": "separation", "weights": "some/weights", "weights_licence": licence}
        return song(id, "CC0").know(Fact("stems", stems, "separation", 0.5))

    items = [separated("a", "research only"), separated("b", "MIT"), song("c", "CC0")]
    done = Settings(purpose="commercial").curate_all(items)
    assert [item.aside for item in done] == [True, False, False]
    assert done[0].remarks[-1].text.startswith("its stems, tool: some/weights: ")
    assert not any(item.aside for item in Settings(purpose="private").curate_all(items))


def test_songs_that_cannot_go_together() -> None:
    items = [
        song("a", "CC-BY-SA-4.0", "A"),
        song("b", "CC-BY-NC-4.0", "B"),
        song("c", "CC-BY-SA-4.0", "C"),
    ]
    noted = Settings(purpose="publish").curate_all(items)
    assert not any(item.aside for item in noted)
    assert "no licence that is known holds both" in noted[0].remarks[0].text
    apart = Settings(purpose="publish", conflicts="set aside").curate_all(items)
    assert [item.aside for item in apart] == [False, True, False]
    assert apart[0].traces["rights"]["licence"] == "CC-BY-SA-4.0"


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="purpose is 'sale'"):
        replace(Settings(), purpose="sale")  # type: ignore[arg-type]
