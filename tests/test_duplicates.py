"""Copies of a song find each other, strangers do not, and no group straddles the split."""

from __future__ import annotations

import io
import itertools
import json
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import soundfile
import soxr

from distill.curation.steps import Item, Sound, _fingerprint, _minhash
from distill.curation.steps._kinship import Family, Link
from distill.curation.steps.duplicates import NAME, Settings
from distill.errors import SettingsError
from distill.folders import package_path
from distill.songs import Fact, Line, Note, Section, Song, read_manifest

STEP = Settings()


def song(id: str, lines: Sequence[str | Line] = (), **about: object) -> Song:
    timed = tuple(line if isinstance(line, Line) else Line(line) for line in lines)
    return Song(id, (Section("verse", timed),) if lines else (), **about)  # type: ignore[arg-type]


def embedded() -> list[Song]:
    home = package_path("songs")
    return [s for name in ("manifest.jsonl", "held-out.jsonl") for s in read_manifest(home / name)]


def read(song: Song) -> Sound:
    wave, rate = soundfile.read(str(song.audio), dtype="float32", always_2d=True)
    return Sound(np.ascontiguousarray(wave.T), rate)


def heard(song: Song, sound: Sound, step: Settings = STEP) -> Item:
    """The song with its fingerprint, as `curate_all` gets it."""
    return replace(step.curate(Item(song, {"audio": sound})), tracks={})


@pytest.fixture(scope="module")
def sounds() -> dict[str, Sound]:
    """All embedded songs: synthetic voices of one speaker, who sing the same words repeatedly."""
    return {song.id: read(song) for song in embedded()}


@pytest.fixture(scope="module")
def items(sounds: dict[str, Sound]) -> list[Item]:
    return [heard(song(id), sound) for id, sound in sounds.items()]


def by_id(items: Sequence[Item]) -> dict[str, Item]:
    return {item.song.id: item for item in items}


def remarks(item: Item) -> str:
    return "; ".join(f"{remark.verdict}: {remark.text}" for remark in item.remarks)


# --- sound: who finds whom ------------------------------------------------------------------------
def coded(sound: Sound, format: str, rate: int, level: float, subtype: str | None = None) -> Sound:
    file = io.BytesIO()
    how = {"bitrate_mode": "CONSTANT"} if format == "MP3" else {}
    wave = soxr.resample(sound.wave_CW.T, sound.sample_rate, rate)
    soundfile.write(
        file, wave, rate, format=format, subtype=subtype, compression_level=level, **how
    )
    file.seek(0)
    again, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return Sound(np.ascontiguousarray(again.T), rate)


def later(sound: Sound, seconds: float) -> Sound:
    return sound._replace(
        wave_CW=np.pad(sound.wave_CW, ((0, 0), (round(seconds * sound.sample_rate), 0)))
    )


def part(sound: Sound, first: float, last: float) -> Sound:
    length = sound.wave_CW.shape[1]
    return sound._replace(wave_CW=sound.wave_CW[:, round(first * length) : round(last * length)])


def joined(*sounds: Sound) -> Sound:
    return sounds[0]._replace(wave_CW=np.concatenate([sound.wave_CW for sound in sounds], axis=1))


MUTATIONS: dict[str, Callable[[Sound], Sound]] = {
    "mp3 64 kb/s": lambda s: coded(s, "MP3", 22050, (160 - 64) / 152),
    "mp3 24 kb/s": lambda s: coded(s, "MP3", 22050, (160 - 24) / 152),
    "mp3 320 kb/s": lambda s: coded(s, "MP3", 44100, 0.0),
    "vorbis": lambda s: coded(s, "OGG", 22050, 0.9, "VORBIS"),
    "louder": lambda s: s._replace(wave_CW=np.clip(1.1 * s.wave_CW, -1, 1).astype(np.float32)),
    "quieter": lambda s: s._replace(wave_CW=np.float32(0.9) * s.wave_CW),
    "1 s later": lambda s: later(s, 1.0),
    "0.985 s later": lambda s: later(s, 0.985),
    "trimmed": lambda s: part(s, 0.08, 0.92),
    "stereo": lambda s: s._replace(
        wave_CW=np.concatenate([s.wave_CW, np.float32(0.3) * s.wave_CW])
    ),
    "anti-phase": lambda s: s._replace(wave_CW=np.concatenate([s.wave_CW, -s.wave_CW])),
    "all": lambda s: coded(later(part(s, 0.05, 0.95), 1.013), "MP3", 22050, (160 - 64) / 152),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_copy_finds_its_original_and_nothing_else(
    mutation: str, sounds: dict[str, Sound], items: list[Item]
) -> None:
    chosen = sorted(sounds, key=lambda id: sounds[id].seconds)[:12]
    copies = [heard(song(f"{id} copy"), MUTATIONS[mutation](sounds[id])) for id in chosen]
    done = by_id(Settings(keep="all").curate_all([*items, *copies]))
    for id in chosen:
        assert done[id].song.group == done[f"{id} copy"].song.group == id
        # without its silent end a trimmed one may be less than a copy
        texts = remarks(done[f"{id} copy"])
        ways = (
            ("same recording as", "an excerpt of")
            if mutation in ("trimmed", "all")
            else ("same recording as",)
        )
        assert any(f"{how} {id}, offset" in texts for how in ways)
    assert {item.song.group for id, item in done.items() if id in sounds and id not in chosen} == {
        ""
    }
    assert not any(item.aside for item in done.values())


def test_songs_in_one_voice_with_the_same_words_are_strangers(items: list[Item]) -> None:
    done = STEP.curate_all(items)
    assert all(item.song.group == "" and not item.remarks for item in done)


def test_a_remark_tells_offset_and_share(sounds: dict[str, Sound], items: list[Item]) -> None:
    first = items[0].song.id
    copy = heard(song("copy"), later(sounds[first], 1.0))
    done = by_id(Settings(keep="all").curate_all([copy, *items]))
    text = remarks(done["copy"]).replace("0%", "0 %")
    assert f"same recording as {first}, offset +1.0 s, 100 % of it" in text
    assert "same recording as copy, offset -1.0 s" in remarks(done[first])


def test_excerpts_and_edits_are_grouped_and_kept(sounds: dict[str, Sound]) -> None:
    id, other = sorted(sounds)[-2:]
    whole = sounds[id]
    items = [
        heard(song("whole"), whole),
        heard(song("excerpt"), part(whole, 0.3, 0.7)),
        heard(song("edit"), joined(part(whole, 0, 0.4), part(whole, 0.7, 1))),
        heard(song("half another song"), joined(sounds[other], part(whole, 0, 0.2))),
    ]
    done = by_id(STEP.curate_all(items))
    assert {done[name].song.group for name in ("whole", "excerpt", "edit")} == {"edit"}
    assert done["half another song"].song.group == ""
    assert not any(item.aside for item in done.values())
    assert "excerpt of whole, offset -" in remarks(done["excerpt"])


def test_two_songs_cut_from_one_file_are_no_duplicates(sounds: dict[str, Sound]) -> None:
    """As `folder` makes them with `held_out_lines`: same file, same words, other seconds."""
    id = max(sounds, key=lambda id: sounds[id].seconds)
    sound = joined(sounds[id], sounds[id])
    words = "we sing this very line again and again until the morning comes"
    half = sound.seconds / 2
    train = song("a#train", [Line(words, 0.0, half)], audio="a.mp3")
    held = song("a#held-out", [Line(words, half, sound.seconds)], audio="a.mp3", split="held-out")
    alone = STEP.curate_all([heard(train, sound), heard(held, sound)])
    assert not any(item.aside or item.remarks for item in alone)
    copy = heard(song("b", audio="b.mp3"), sound)
    done = by_id(STEP.curate_all([heard(train, sound), heard(held, sound), copy]))
    assert (
        done["b"].aside
        and "a#held-out" in remarks(done["b"])
        and "which is held out" in remarks(done["b"])
    )
    assert not done["a#train"].aside and not done["a#held-out"].aside
    assert done["a#train"].song.group == done["a#held-out"].song.group == ""


def test_the_same_seconds_of_a_file_in_both_splits_are_found(sounds: dict[str, Sound]) -> None:
    sound = next(iter(sounds.values()))
    train = song("a", [Line("one line", 0.0, 20.0)], audio="a.mp3")
    held = song("b", [Line("another line", 4.0, 20.0)], audio="a.mp3", split="held-out")
    done = by_id(STEP.curate_all([heard(train, sound), heard(held, sound)]))
    assert done["a"].aside and not done["b"].aside


def test_what_cannot_be_compared_passes() -> None:
    silent = Sound(np.zeros((1, 16000), np.float32), 16000)
    short = Sound(np.zeros((2, 3), np.float32), 44100)
    items = [
        heard(song("silent"), silent),
        heard(song("silent too"), silent),
        heard(song("short"), short),
    ]
    items += [STEP.curate(Item(song("no sound"))), Item(song("never curated"))]
    done = by_id(STEP.curate_all(items))
    assert "too little sound to compare (0 spectral peaks)" in remarks(done["silent"])
    assert all(item.song.group == "" and not item.aside for item in done.values())
    assert STEP.curate_all([]) == []


def test_two_tones_and_two_noises(sounds: dict[str, Sound]) -> None:
    """A held tone has no landmarks to speak of; noise has, and another noise has others."""
    time = np.arange(16000 * 8) / 16000
    draw = np.random.default_rng(1)
    tone = Sound(np.sin(2 * np.pi * 440 * time, dtype=np.float64)[None].astype(np.float32), 16000)
    noises = [
        Sound(0.1 * draw.standard_normal((1, len(time)), np.float32), 16000) for _ in range(2)
    ]
    items = [heard(song("tone"), tone), heard(song("n1"), noises[0]), heard(song("n2"), noises[1])]
    items.append(heard(song("n1 copy"), coded(noises[0], "MP3", 22050, 0.5)))
    groups = {item.song.id: item.song.group for item in STEP.curate_all(items)}
    assert groups == {"tone": "", "n1": "n1", "n1 copy": "n1", "n2": ""}


def test_one_backing_track_does_not_make_one_song(sounds: dict[str, Sound]) -> None:
    """The same loop, as loud as the voice, from the same moment on; alone before and after."""
    draw, rate = np.random.default_rng(2), 24000
    beat = np.arange(rate // 2) / rate
    hit = 0.4 * draw.standard_normal(len(beat)) * np.exp(-40 * beat)
    bars = [
        hit + sum(np.sin(2 * np.pi * f * beat) for f in chord) * np.exp(-4 * beat) / 3
        for chord in CHORDS
    ]
    items = []
    for id in sorted(sounds)[-8:]:
        assert sounds[id].sample_rate == rate
        sung_W = sounds[id].wave_CW[0]
        wave = np.pad(sung_W[: np.flatnonzero(np.abs(sung_W) > 1e-3)[-1]], 3 * rate)
        loop = np.resize(np.concatenate(bars), len(wave))
        loop *= np.sqrt(np.square(wave).mean() / np.square(loop).mean())
        items.append(heard(song(id), Sound((wave + loop).astype(np.float32)[None], rate)))
    assert {item.song.group for item in STEP.curate_all(items)} == {""}


CHORDS = [
    (220.0, 277.2, 329.6),
    (220.0, 277.2, 370.0),
    (246.9, 293.7, 370.0),
    (164.8, 246.9, 329.6),
]


# --- the fingerprint ------------------------------------------------------------------------------
def test_a_fingerprint_is_plain_and_small(sounds: dict[str, Sound], items: list[Item]) -> None:
    for item in items:
        text = json.dumps(item.traces[NAME], allow_nan=False)
        assert len(text) < 150 * sounds[item.song.id].seconds + 200
        assert "mp3" not in text and "/" not in json.loads(text)["file"]


def test_gain_does_not_move_a_peak(sounds: dict[str, Sound]) -> None:
    sound = next(iter(sounds.values()))
    peaks = _fingerprint.constellation(sound.wave_CW, sound.sample_rate)
    for gain in (0.5, 2.0):  # powers of two: exact in floats
        assert np.array_equal(
            peaks, _fingerprint.constellation(gain * sound.wave_CW, sound.sample_rate)
        )


def test_a_long_song_in_chunks_is_the_song(
    sounds: dict[str, Sound], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = joined(*list(sounds.values())[:3])
    whole = _fingerprint.constellation(sound.wave_CW, sound.sample_rate)
    monkeypatch.setattr(_fingerprint, "CHUNK", 100)
    assert np.array_equal(whole, _fingerprint.constellation(sound.wave_CW, sound.sample_rate))


def test_workers_leave_what_the_caller_would_leave(
    sounds: dict[str, Sound], items: list[Item]
) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for item in items[:2]:
            done = pool.submit(
                STEP.curate, Item(item.song, {"audio": sounds[item.song.id]})
            ).result()
            assert done.traces[NAME] == item.traces[NAME]


def test_a_hundred_copies_are_one_group_of_which_few_are_kept(
    sounds: dict[str, Sound], items: list[Item]
) -> None:
    """More copies than a hash is followed to: a chain still holds them together."""
    copies = [replace(items[3], song=song(f"copy {n:03d}")) for n in range(100)]
    done = by_id(STEP.curate_all([*copies, *items]))
    assert {item.song.group for id, item in done.items() if id.startswith("copy")} == {"copy 000"}
    kept = [id for id, item in done.items() if item.song.group == "copy 000" and not item.aside]
    assert kept[0] == "copy 000" and len(kept) <= 4


# --- words ----------------------------------------------------------------------------------------
VERSE = [
    "the river took the morning train to see the silver sea",
    "and every stone along the bank was singing quietly",
    "oh carry me, oh carry me, until the lights are gone",
    "there is no road but water now and water carries on",
]


def test_a_cover_is_grouped_and_kept(sounds: dict[str, Sound]) -> None:
    a, b = list(sounds)[:2]
    sung = [line.upper() + "!" for line in VERSE] + VERSE[2:3]  # the refrain sung twice
    done = STEP.curate_all([heard(song("a", VERSE), sounds[a]), heard(song("b", sung), sounds[b])])
    assert [item.song.group for item in done] == ["a", "a"] and not any(item.aside for item in done)
    assert "same words as a" in remarks(done[1]) and "another recording" in remarks(done[1])


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (
            ["月亮代表我的心", "你问我爱你有多深我爱你有几分"],
            ["月亮代表我的心", "你问我爱你有多深", "我爱你有几分"],
            True,
        ),
        (
            ["月亮代表我的心", "你问我爱你有多深我爱你有几分"],
            ["甜蜜蜜你笑得甜蜜蜜", "好像花儿开在春风里开在春风里"],
            False,
        ),
        # short: the same words or nothing
        (["café olé, mañana nos vamos"], ["Cafe ole manana nos vamos"], True),
        (["row your boat gently down"], ["row your boat softly down"], False),
        (["la la la"], ["la la la"], False),  # says nothing
        (["[instrumental]"], ["[instrumental]"], False),
        (VERSE, [VERSE[3], *VERSE[:3]], True),
        (VERSE, [line[::-1] for line in VERSE], False),
        (VERSE, [], False),
        ([], [], False),
    ],
)  # fmt: skip
def test_words_that_are_the_same(a: list[str], b: list[str], same: bool) -> None:
    done = STEP.curate_all([Item(song("a", a)), Item(song("b", b))])
    assert [item.song.group for item in done] == (["a", "a"] if same else ["", ""])


def test_signatures_miss_no_pair_and_add_none() -> None:
    draw = random.Random(5)
    texts = []
    for _ in range(40):
        base = [f"w{draw.randrange(5000)}" for _ in range(80)]
        texts += [base, [word if draw.random() > 0.08 else "other" for word in base]]
    wordings = [_minhash.wording([" ".join(text)]) for text in texts]
    runs = [{tuple(text[n : n + 3]) for n in range(len(text) - 2)} for text in texts]
    truth = {
        (a, b): len(runs[a] & runs[b]) / len(runs[a] | runs[b])
        for a, b in itertools.combinations(range(len(texts)), 2)
    }
    wanted = {pair: index for pair, index in truth.items() if index >= 0.4}
    assert len(wanted) >= 30 and _minhash.alike(wordings, 0.4) == pytest.approx(wanted)


def test_the_same_text_a_thousand_times_is_one_group_and_quick() -> None:
    done = STEP.curate_all([Item(song(f"{n:04d}", VERSE)) for n in range(1000)])
    assert {item.song.group for item in done} == {"0000"}


# --- which copy is kept ---------------------------------------------------------------------------
NOTES = (Note(0.0, 1.0, 60.0, "la"),)


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        (song("z", [Line("la", notes=NOTES)]), song("a", [Line("la")]), "finer times"),
        (
            song("z", [Line("la", 0, 20)]),
            song("a", [Line("la", 0, 20, confidence=0.9)]),
            "times by a person",
        ),
        (
            song("z", facts=(Fact("bandwidth_hz", 7900),)),
            song("a", facts=(Fact("bandwidth_hz", 4000),)),
            "wider band",
        ),
        (song("z", audio="x/z.FLAC"), song("a", audio="x/a.mp3"), "lossless"),
        (song("a"), song("z"), "first by name"),
    ],
)
def test_the_best_copy_is_kept(
    better: Song, worse: Song, why: str, sounds: dict[str, Sound]
) -> None:
    sound = sounds["songbook-train-1-00014"]
    for pair in ([better, worse], [worse, better]):
        done = by_id(STEP.curate_all([heard(copy, sound) for copy in pair]))
        assert not done[better.id].aside and done[worse.id].aside
        assert f"same lyrics; {better.id} is kept: {why}" in remarks(done[worse.id])


def test_the_longer_copy_is_kept(sounds: dict[str, Sound]) -> None:
    sound = sounds["songbook-train-1-00014"]
    done = by_id(STEP.curate_all([heard(song("a"), part(sound, 0, 0.95)), heard(song("b"), sound)]))
    assert done["a"].aside and "b is kept: longer" in remarks(done["a"]) and not done["b"].aside


def test_other_lyrics_to_one_recording_are_kept(sounds: dict[str, Sound]) -> None:
    sound = sounds["songbook-train-1-00014"]
    done = STEP.curate_all(
        [heard(song("a", VERSE), sound), heard(song("b", ["and quite other words here"]), sound)]
    )
    assert [item.song.group for item in done] == ["a", "a"] and not any(item.aside for item in done)


# --- the split ------------------------------------------------------------------------------------
def test_training_copies_of_held_out_songs_are_set_aside(sounds: dict[str, Sound]) -> None:
    sound, other = sounds["songbook-train-1-00014"], sounds["songbook-train-1-00005"]
    items = [
        # the better file, yet the held-out set stays as it is
        heard(song("copy", audio="copy.flac"), sound),
        heard(song("cover", VERSE), other),
        heard(song("held", VERSE, split="held-out", audio="held.mp3"), sound),
        heard(song("stranger"), sounds["songbook-train-1-00003"]),
    ]
    done = by_id(STEP.curate_all(items))
    assert {id for id, item in done.items() if item.aside} == {"copy", "cover"}
    assert "same recording as held" in remarks(done["copy"])
    assert "held is held out" not in remarks(done["copy"])
    assert remarks(done["cover"]).startswith("set aside: same words as held")
    assert "held out" in remarks(done["cover"])
    assert done["held"].song.split == "held-out" and done["stranger"].song.split == "train"


def test_a_group_by_the_source_counts() -> None:
    items = [
        Item(song("a", group="g")),
        Item(song("b", group="g", split="held-out")),
        Item(song("c", group="h")),
    ]
    done = by_id(STEP.curate_all(items))
    assert done["a"].aside and "in one group with b, which is held out" in remarks(done["a"])
    assert [done[id].song.group for id in "bc"] == ["g", "h"] and not done["c"].aside


def test_no_group_ever_straddles() -> None:
    draw = random.Random(7)
    for _ in range(300):
        count = draw.randrange(2, 14)
        songs = [
            song(
                f"s{n:02d}",
                split=draw.choice(["train", "train", "held-out"]),
                group=draw.choice(["", "", "g", "s03"]),
            )
            for n in range(count)
        ]
        pairs = [pair for pair in itertools.combinations(range(count), 2) if draw.random() < 0.15]
        family = Family(songs, [""] * count, {pair: Link(None, 1.0) for pair in pairs})
        aside = family.leaks()
        groups = family.groups(n for n in range(count) if n not in aside)
        assert all(songs[n].split == "train" for n in aside)
        for name in set(groups.values()) - {""}:
            assert len({songs[n].split for n, group in groups.items() if group == name}) == 1
        for a, b in pairs:
            if a in groups and b in groups:
                assert groups[a] == groups[b] != ""


def lyrics(n: int) -> list[str]:
    return [f"w{n}x{k} w{n}y{k} w{n}z{k} w{n}q{k}" for k in range(4)]


def sides(items: Sequence[Item], share: float = 0.2) -> dict[str, str]:
    done = Settings(held_out_share=share).curate_all(items)
    assert not any(item.aside for item in done)
    return {item.song.id: item.song.split for item in done}


def test_a_share_is_held_out_in_whole_groups_whatever_the_order() -> None:
    items = [Item(song(f"s{n}", lyrics(n // 2))) for n in range(600)]  # pairs of covers
    split = sides(items)
    assert all(split[f"s{n}"] == split[f"s{n + 1}"] for n in range(0, 600, 2))
    assert 0.14 < sum(side == "held-out" for side in split.values()) / 600 < 0.26
    shuffled = random.Random(3).sample(items, len(items))
    assert sides(shuffled) == split
    # stable when songs are added
    assert all(split[id] == side for id, side in sides(items[:400]).items())
    more = sides(items, 0.4)
    assert all(more[id] == "held-out" for id, side in split.items() if side == "held-out")


def test_a_few_songs_leave_something_on_both_sides() -> None:
    for count in range(2, 8):
        few = [Item(song(f"s{n}", lyrics(n))) for n in range(count)]
        for share in (0.01, 0.99):
            assert len(set(sides(few, share).values())) == 2
    assert sides([Item(song("alone", VERSE))]) == {"alone": "train"}


def test_a_source_that_holds_songs_out_decides_itself() -> None:
    items = [
        Item(song(f"s{n}", lyrics(n), split="held-out" if n == 5 else "train")) for n in range(40)
    ]
    done = Settings(held_out_share=0.5).curate_all(items)
    assert [item.song.id for item in done if item.song.split != "train"] == ["s5"]
    assert "held_out_share is not used" in remarks(done[5])


# --- all together ---------------------------------------------------------------------------------
def test_order_does_not_matter_and_all_songs_come_back(
    sounds: dict[str, Sound], items: list[Item]
) -> None:
    pool = [*items[:12]]
    for n, item in enumerate(items[:6]):
        pool.append(
            heard(
                song(f"copy {n}", VERSE if n % 2 else ()),
                later(part(sounds[item.song.id], 0, 0.9), n / 3),
            )
        )
    pool[2] = replace(pool[2], song=replace(pool[2].song, split="held-out"))
    done = STEP.curate_all(pool)
    assert [item.song.id for item in done] == [item.song.id for item in pool]
    for seed in range(3):
        again = STEP.curate_all(random.Random(seed).sample(pool, len(pool)))
        assert by_id(again) == by_id(done)


def test_what_is_aside_takes_no_part(items: list[Item]) -> None:
    gone = replace(items[0], song=replace(items[0].song, id="gone")).remark(
        "rights", "set aside", "no licence"
    )
    done = STEP.curate_all([gone, items[0]])
    assert done[0] == gone and done[1].song.group == "" and not done[1].remarks


def test_sound_and_words_can_be_left_out(sounds: dict[str, Sound]) -> None:
    sound = sounds["songbook-train-1-00014"]
    deaf, wordless = Settings(audio_share=None), Settings(lyrics_jaccard=None)
    assert "peaks" not in deaf.curate(Item(song("a"), {"audio": sound})).traces[NAME]
    assert [
        i.song.group for i in deaf.curate_all([heard(song("a"), sound), heard(song("b"), sound)])
    ] == ["", ""]
    assert [
        i.song.group for i in wordless.curate_all([Item(song("a", VERSE)), Item(song("b", VERSE))])
    ] == ["", ""]


@pytest.mark.parametrize(
    "wrong",
    [
        {"audio_share": 0.0},
        {"audio_share": 1.5},
        {"lyrics_jaccard": -0.1},
        {"held_out_share": 1.0},
        {"keep": "some"},
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]
