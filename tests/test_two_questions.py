"""Does the adapter do anything? Does it remember instead of sing? Each answer, right and wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_singer
import torch

from distill.lm import logits
from distill.singing import copies, report_words
from distill.singing.sampling import Sampling
from distill.singing.singer import Singer
from distill.singing.singer_folder import About
from distill.songs import Section, Song, from_its_start
from distill.tasks import _effect, _memory
from distill.tasks._effect import copied, divergence, effect
from distill.writing.prompts import Coded, WritingSettings, passages

RATE = 25.0


def random_codes(count: int, frames: int, seed: int) -> list[np.ndarray]:
    chance = np.random.default_rng(seed)
    return [
        np.stack([chance.integers(size, size=frames) for size in (40, 24)], 1) for _ in range(count)
    ]


def shares(rows: dict[str, Any], training: list[np.ndarray]) -> list[dict[str, Any]]:
    return copies.of_codes(rows, training, RATE)["runs"]


# --- remembering ----------------------------------------------------------------------------------
def test_a_copy_is_known_whole_and_a_stranger_not_at_all() -> None:
    training = random_codes(20, 200, 0)
    rows = {"copy": [training[3][50:120]], "stranger": random_codes(4, 100, 1)}
    for run in shares(rows, training):
        assert run["slot0"] == {"copy": 1.0, "stranger": 0.0}, run
        assert run["all_slots"] == {"copy": 1.0, "stranger": 0.0}, run


def test_half_a_copy_is_half_known_and_the_coarse_slot_alone_is_told_apart() -> None:
    training, mine = random_codes(10, 200, 0), random_codes(2, 100, 1)
    half = np.concatenate([training[2][:50], mine[0][:50]])
    coarse = mine[1].copy()
    coarse[:, 0] = training[7][:100, 0]
    for run in shares({"half": [half], "coarse": [coarse]}, training):
        assert run["slot0"] == {"half": 0.5, "coarse": 1.0}
        assert run["all_slots"] == {"half": 0.5, "coarse": 0.0}


def test_a_run_does_not_reach_from_one_song_into_the_next_and_short_ones_say_nothing() -> None:
    training = random_codes(2, 12, 0)
    seam = np.concatenate([training[0][-6:], training[1][:6]])
    (short, long) = shares({"seam": [seam], "scrap": [seam[:3]], "none": []}, training)
    assert short["frames"] == 10 and short["slot0"] == {"seam": 0.0, "scrap": None, "none": None}
    assert long["frames"] == 25 and long["slot0"]["seam"] is None


def test_silence_is_known_everywhere_which_the_control_shows() -> None:
    still = np.zeros((60, 2), dtype=np.int64)
    training = [still, *random_codes(3, 100, 0)]
    rows = {"takes": [still, *random_codes(1, 60, 1)], "control": [still, *random_codes(1, 60, 2)]}
    for run in shares(rows, training):
        assert run["all_slots"] == {"takes": 0.5, "control": 0.5}


def test_large_data_is_cut_and_the_result_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "MOST_FRAMES", 450)
    training = random_codes(5, 200, 0)
    read: list[int] = []

    def reading() -> Any:
        for number, codes_FS in enumerate(training):
            read.append(number)
            yield codes_FS

    result = copies.of_codes({"copy": [training[4]], "first": [training[0]]}, reading(), RATE)
    assert result["training_frames"] == 450 and read == [0, 1, 2]
    assert result["runs"][0]["slot0"] == {"copy": 0.0, "first": 1.0}


def melody(keys: list[int], seconds: list[float], tempo: float = 1.0, higher: int = 0) -> Any:
    now, notes = 1.0, []
    for key, length in zip(keys, seconds, strict=True):
        notes.append((now, now + length * tempo, float(key + higher)))
        now += length * tempo
    return notes


def test_a_melody_is_known_in_another_key_and_tempo_but_not_with_another_rhythm() -> None:
    keys, lengths = [60, 62, 64, 65, 67, 69, 67], [0.2, 0.2, 0.4, 0.2, 0.2, 0.4, 0.8]
    other = [0.4, 0.2, 0.2, 0.8, 0.2, 0.2, 0.2]
    rows = {
        "same": [melody(keys, lengths, 1.3, 5)],
        "rhythm": [melody(keys, other)],
        "tune": [melody([60, 61, 60, 58, 60, 55, 60], lengths)],
        "short": [melody(keys[:5], lengths[:5])],
    }
    result = copies.of_melodies(rows, [melody(keys, lengths)])
    assert result["shares"] == {"same": 1.0, "rhythm": 0.0, "tune": 0.0, "short": None}
    assert result["training_notes"] == 7 and result["notes"] == 6


# --- a singer that knows one song by heart --------------------------------------------------------
def singer_of(student: Any, songs: list[Song]) -> Singer:
    codec = tiny_singer.ToyCodec()
    about = About(
        codec={"kind": "toy"},
        codec_fingerprint=codec.fingerprint,
        slot_sizes=codec.format.slot_sizes,
        base="",
        tokens=900,
        writing=WritingSettings(),
        sampling=Sampling(temperatures=(0.0,), score_temperature=0.0),
        styles=("folk, calm",),
        voices=("low voice",),
        grain="note",
        licences={},
        credits=(),
        recipe="",
    )
    return Singer(student, codec, about)  # type: ignore[arg-type]


def test_a_singer_that_copies_is_found_out_and_one_that_does_not_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The copying one is the plain singer with its takes' codes taken from a training song."""
    songs, held_out = [tiny_singer.song(n) for n in range(3)], [tiny_singer.song(9)]
    train, apart = tiny_singer.coded(3), tiny_singer.coded(1, seed=9)
    singer = singer_of(tiny_singer.student(), songs)
    honest = _memory.remembered(singer, songs, held_out, train, apart, seed=1)
    rows = {_memory.HELD_OUT, _memory.LEARNT, _memory.CONTROL}
    assert honest["lines"][_memory.HELD_OUT] == 3 and honest["lines"][_memory.LEARNT] == 8
    assert set(honest["codes"]["runs"][0]["all_slots"]) == rows
    assert all(share in (0.0, None) for share in honest["codes"]["runs"][0]["all_slots"].values())
    sing = Singer.sing_lines
    lines = [line for song in songs for line in song.lines if len(line.notes) >= copies.RUN_NOTES]
    notes = tuple((n.start, n.end, n.midi) for n in lines[0].notes)

    def copying(self: Singer, *arguments: Any, **options: Any) -> Any:
        takes = sing(self, *arguments, **options)
        by_heart = train[1].codes_FS
        return [dataclasses.replace(take, codes_FS=by_heart, notes=notes) for take in takes]

    monkeypatch.setattr(Singer, "sing_lines", copying)
    shown = _memory.remembered(singer, songs, held_out, train, apart, seed=1)
    for run in shown["codes"]["runs"]:
        assert run["all_slots"][_memory.HELD_OUT] == run["slot0"][_memory.LEARNT] == 1.0
        assert run["all_slots"][_memory.CONTROL] in (0.0, None)
    assert shown["melodies"]["shares"][_memory.HELD_OUT] == 1.0
    assert honest["melodies"]["shares"][_memory.HELD_OUT] in (0.0, None)


def test_a_model_that_learnt_one_passage_by_heart_sings_it_and_is_found_out() -> None:
    """Nothing is put in its mouth: greedy, along the score, trained until it knows the codes."""
    student = tiny_singer.student("llama", lively=0.0, width=64, inner=128, heads=4)
    train = learnt_passage()
    learn_by_heart(student, train)
    song = tiny_singer.song(4)
    singer = singer_of(student, [song])
    (take,) = singer.sing_lines([from_its_start(song.lines[0])], seed=0)
    rows = {"by_heart": [take.codes_FS.numpy()], "control": random_codes(1, 60, 3)}
    run = copies.of_codes(rows, [train.codes_FS.numpy()], RATE)["runs"][0]
    assert run["all_slots"]["by_heart"] > 0.8 and run["all_slots"]["control"] == 0.0
    fresh = singer_of(tiny_singer.student("llama", width=64, inner=128, heads=4), [song])
    (take,) = fresh.sing_lines([from_its_start(song.lines[0])], seed=0)
    rows = {"fresh": [take.codes_FS.numpy()]}
    run = copies.of_codes(rows, [train.codes_FS.numpy()], RATE)["runs"][0]
    assert run["all_slots"]["fresh"] == 0.0


def learnt_passage() -> Coded:
    """The first line of a song, written as a singer that follows its score is asked for it."""
    line = from_its_start(tiny_singer.song(4).lines[0])
    line = dataclasses.replace(line, start=0.0)
    asked = Song("asked", (Section("", (line,)),), "folk, calm", "low voice")
    passage = passages(asked, RATE, tiny_singer.LONGEST, WritingSettings())[0]
    codes = random_codes(1, passage.frames, 8)[0]
    return Coded(passage, torch.from_numpy(codes))


def learn_by_heart(student: Any, item: Coded, steps: int = 150) -> None:
    optimizer = torch.optim.AdamW(student.trainable().values(), lr=3e-3, weight_decay=0.0)
    for _ in range(steps):
        loss = torch.zeros(())
        for _, batch in logits.packed(student, [item], 2048):
            hidden_ND = logits.hidden_ND(student, batch)
            for slot in range(len(batch.slots)):
                logits_NC = logits.slot_logits_NC(student, hidden_ND, batch, slot)
                target_N = batch.slots[slot].target_N
                loss = loss + torch.nn.functional.cross_entropy(logits_NC, target_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.02:
            break
    student.model.eval()


# --- the adapter ----------------------------------------------------------------------------------
@pytest.mark.slow
def test_an_untrained_adapter_does_nothing_and_a_trained_one_something(tmp_path: Path) -> None:
    student = tiny_singer.student(lora=True, lively=0.0)
    songs, held_out = [tiny_singer.song(5)], tiny_singer.coded(2, seed=5)
    singer, first = singer_of(student, songs), copied(student)
    nothing = effect(singer, first, held_out, songs, seed=2)
    assert nothing["before_training"]["kl_per_token"] == [0.0, 0.0]
    assert nothing["before_training"]["sung"]["codes_changed"] == 0.0
    assert nothing["before_training"]["sung"]["mel_l1"] == 0.0
    disturb(student)
    trained = copied(student)
    something = effect(singer, first, held_out, songs, seed=2)
    assert all(torch.equal(trained[name], value) for name, value in copied(student).items())
    assert all(kl > 0.01 for kl in something["before_training"]["kl_per_token"])
    assert all(kl > 0.01 for kl in something["rows_alone"]["kl_per_token"])
    assert something["before_training"]["sung"]["codes_changed"] > 0.1
    assert something["before_training"]["sung"]["mel_l1"] > 0.0
    report = {"adapter": something}
    assert len(report_words.adapter_lines(report)) == 2
    assert "KL" in report_words.adapter_lines(report)[0]


def test_rows_that_alone_were_trained_leave_lora_without_effect() -> None:
    """The commonest complaint: an adapter whose LoRA changes nothing."""
    student = tiny_singer.student(lora=True, lively=0.0)
    first, held_out = copied(student), tiny_singer.coded(2)
    disturb(student, only="new")
    result = effect(singer_of(student, []), first, held_out, [], seed=0)
    assert result["rows_alone"]["kl_per_token"] == [0.0, 0.0]
    assert result["before_training"]["kl_per_token"][0] > 0.01


def test_the_divergence_is_that_of_the_definition() -> None:
    student, held_out = tiny_singer.student(lora=True), tiny_singer.coded(1)
    on = copied(student)
    disturb(student)
    off = copied(student)
    student.load_state(on)
    wanted = [0.0, 0.0]
    with torch.no_grad():
        for _, batch in logits.packed(student, held_out, 100_000):
            ours = _effect._logs(student, batch)
            student.load_state(off)
            theirs = _effect._logs(student, batch)
            student.load_state(on)
            wanted = [
                float((p.exp() * (p - q)).sum(-1).mean()) for p, q in zip(ours, theirs, strict=True)
            ]
    assert divergence(student, on, off, held_out) == pytest.approx(wanted, rel=1e-4)


def disturb(student: Any, only: str = "", amount: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in student.trainable().items():
            if only in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * amount)


# --- in words -------------------------------------------------------------------------------------
def test_what_was_not_measured_is_not_said() -> None:
    assert report_words.adapter_lines({}) == report_words.memory_lines({"memory": None}) == []


def test_the_shares_stand_beside_their_control() -> None:
    rows = {_memory.HELD_OUT: 0.5, _memory.LEARNT: None, _memory.CONTROL: 0.01}
    run = {"seconds": 0.4, "frames": 10, "slot0": rows, "all_slots": dict.fromkeys(rows)}
    codes = {"training_frames": 1000, "runs": [run]}
    melodies = {"training_notes": 70, "notes": 6, "shares": rows}
    lines = report_words.memory_lines({"memory": {"codes": codes, "melodies": melodies}})
    assert len(lines) == 2 and "50.0%" in lines[0] and "1.0%" in lines[0] and "control" in lines[0]
    assert "runs of 6 notes" in lines[1]
