"""The run of task sing:

    songs -> codes -> teacher's signals -> graft -> train -> singer -> measured -> merged -> a take

Each stage leaves what it made where the next call of the same recipe finds it again (codes and
signals in the cache, training in the run folder), so an interrupted run, called again, goes on.
"""

from __future__ import annotations

import functools
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from distill import coded_songs, folders
from distill.codecs import Codec
from distill.config import settings as strict
from distill.config.recipe import Recipe, with_songs
from distill.curation.curated_songs import load_songs
from distill.errors import SettingsError
from distill.folders import Json
from distill.licences import named
from distill.lm import logits
from distill.lm.merge import merge
from distill.lm.student import Student
from distill.runtime import ranks
from distill.runtime.devices import best_device
from distill.singing import evaluate, report_words
from distill.singing.singer import Singer
from distill.singing.singer_folder import (
    About,
    VocoderCard,
    about_singer,
    open_vocoder,
    put_codec,
    put_part,
    write_about,
)
from distill.songs import Song, from_its_start, primary
from distill.tasks import _before, _run
from distill.tasks._continued import handed_down
from distill.tasks._effect import State, copied, effect
from distill.tasks._heard import HeldOutLine
from distill.tasks._held_out import embedded_held_out
from distill.tasks._memory import remembered
from distill.tasks._recording import record
from distill.tasks._sample import sample
from distill.tasks._singing_settings import SingingSettings
from distill.tasks._singing_task import SingingTask, student_of, vocabulary_of
from distill.tasks._sound import compare
from distill.tasks._watch import Watch, last_step
from distill.teachers import Teacher, check_symbols
from distill.teachers.model import Settings as LiveTeacher
from distill.teachers.recorded import RecordedTeacher
from distill.training.trainer import refuse
from distill.vocoders.codec import CodecVocoder
from distill.vocoders.head import HeadVocoder, read_config
from distill.writing.passage_index import PassageIndex
from distill.writing.prompts import Coded, Passage


@dataclass(frozen=True)
class Stage:
    """A recipe's songs, coded; its codec, teacher, student and vocoder, opened and checked before
    anything is trained. `open_stage` makes one."""

    recipe: Recipe
    settings: SingingSettings
    songs: list[Song]
    held_out_songs: list[Song]
    codec: Codec
    student: Student
    train: PassageIndex
    held_out: Sequence[Coded]
    teacher: Teacher | None
    vocoder: VocoderCard | None

    @property
    def seconds(self) -> float:
        """Seconds of song to train on."""
        return self.train.frames / self.codec.format.frame_rate

    def record(self) -> int | None:
        """Passages that a recorded teacher had not heard yet and has now; None for another one."""
        if not isinstance(self.teacher, RecordedTeacher):
            return None
        assert self.settings.teacher is not None
        live = LiveTeacher(self.settings.teacher.singer)
        load = functools.partial(live.load, self.codec)
        return record(self.teacher, [self.train, self.held_out], load)

    def measured(self) -> Json | None:
        """Teacher-forced figures of the student on a sample of the held-out passages, where it
        trains; None without any."""
        if not self.held_out:
            return None
        self.student.to(best_device())
        return logits.held_out(self.student, sample(self.held_out), self.teacher)

    def first_song(self) -> Song:
        """Whose first line is the take at the end."""
        return (self.held_out_songs or self.songs)[0]


def open_stage(recipe: Recipe) -> Stage:
    """Opens everything a run needs, in the order in which mistakes are cheapest to hear of."""
    settings: SingingSettings = recipe.settings
    given = ranks.from_first(lambda: load_songs(settings.songs, settings.curation))
    codec = settings.codec.load().to(best_device())
    songs = [song for song in given if song.split == "train"]
    held_out = [song for song in given if song.split != "train"]
    held_out = held_out or embedded_held_out(settings.songs, codec.format)
    student = student_of(settings, codec, recipe.seed)
    coded_songs.encode_shared([*songs, *held_out], codec)
    train_passages = _coded(settings, songs, codec, student)
    held_out_passages = _coded(settings, held_out, codec, student) if held_out else []
    teacher = settings.teacher.load(codec) if settings.teacher is not None else None
    if settings.teacher is not None:
        theirs = vocabulary_of(settings.teacher.singer)
        check_symbols(settings.teacher.singer, theirs, student.vocabulary)
    vocoder = _compare_vocoders(settings, codec, held_out)
    return Stage(
        recipe, settings, songs, held_out, codec, student, train_passages, held_out_passages,
        teacher, vocoder,
    )  # fmt: skip


def _coded(
    settings: SingingSettings, songs: Sequence[Song], codec: Codec, student: Student
) -> PassageIndex:
    """The passages of songs that fit a row; what does not fit is printed."""
    longest, writing = student.vocabulary.longest, settings.writing
    tokens = min(settings.packing.row_tokens, student.longest)

    def fits(passage: Passage) -> bool:
        return student.tokens_of(passage, passage.frames) <= tokens

    def make(aside: list[str]) -> Iterable[Coded]:
        coded = coded_songs.code(songs, codec, longest, writing, fits)
        rate = codec.format.frame_rate
        return coded_songs.fitting(coded, student.tokens_of, tokens, rate, aside)

    depends = (student.text.identity, student.opening, student.vocabulary, tokens)
    index = coded_songs.indexed(songs, codec, depends, make, student.write, writing)
    for words in index.about.remarks:
        print(words, flush=True)
    return index


def _compare_vocoders(
    settings: SingingSettings, codec: Codec, held_out: Sequence[Song]
) -> VocoderCard | None:
    """The recipe's head and the codec's decoder on the same held-out songs: which of them the
    singer will use. None without a head."""
    head = settings.vocoder and settings.vocoder.load(codec)
    if not isinstance(head, HeadVocoder):
        return None
    figures = compare({"codec": CodecVocoder(codec), "head": head}, codec, held_out)
    by_head, by_codec = (figures[name]["mel_l1"] for name in ("head", "codec"))
    print(
        f"vocoder: mel distance {by_head:.3f} by the head, {by_codec:.3f} by the codec, over "
        f"{figures['seconds']:.0f} s of held-out song; the singer uses the {figures['better']}",
        flush=True,
    )
    return VocoderCard(head.fingerprint, figures["better"], by_head, by_codec, figures["seconds"])


def run(recipe: Recipe, folder: Path) -> str:
    """The whole chain of a recipe; writes report.json and gives a few lines on it."""
    _run.announce(recipe)
    clock = _Clock()
    refuse(recipe.settings.train, best_device(), SingingTask.heeds)
    stage = open_stage(recipe)
    clock.lap("songs to codes")
    if stage.record() is not None:
        clock.lap("teacher recorded")
    before = ranks.from_first(lambda: _before.once(recipe, folder, stage.measured))
    first = copied(stage.student)
    singer, steps = train(stage, folder)
    clock.lap("trained")
    # the first process alone, while the others wait
    return ranks.from_first(lambda: _report(stage, singer, steps, (before, first), clock, folder))


def _report(
    stage: Stage,
    singer: Singer,
    steps: int,
    begun: tuple[Json | None, State],
    clock: _Clock,
    folder: Path,
) -> str:
    """What there is to say about a trained singer, measured and written; a few lines on it.
    `begun`: figures and state before training."""
    recipe, (before, first) = stage.recipe, begun
    report: Json = {
        "recipe": recipe.name,
        "recipe_sha256": recipe.sha256,
        "steps": steps,
        "minutes_of_song": stage.seconds / 60,
        "before": before,
        "after": stage.measured(),
    }
    if stage.vocoder is not None:
        report["vocoder"] = asdict(stage.vocoder)
    report["judged"] = evaluate.report(singer, stage.held_out_songs, stage.settings.judge.lines)
    clock.lap("judged")
    report |= _two_questions(stage, singer, first)
    clock.lap("adapter on and off, memory")
    report["merged_largest_difference"] = _merge(stage, folder)
    clock.lap("merged")
    song = stage.first_song()
    language = song.language if singer.knows(song.language) else None
    line = from_its_start(song.lines[0])
    singer.sing_lines([line], seed=recipe.seed, language=language)[0].save(folder / "take.wav")
    clock.lap("a take")
    report["seconds"] = clock.laps
    _run.write_report(folder, report)
    return summary(report, folder)


def _two_questions(stage: Stage, singer: Singer, first: State) -> Json:
    """Does the adapter do anything, and does it remember instead of sing? Both on a capped sample;
    None without held-out songs."""
    if not stage.held_out:
        return {"adapter": None, "memory": None}
    few = sample(stage.held_out, stage.settings.watch.tokens)
    seed, held_out = stage.recipe.seed, stage.held_out_songs
    memory = remembered(singer, stage.songs, held_out, stage.train, stage.held_out, seed)
    return {"adapter": effect(singer, first, few, held_out, seed), "memory": memory}


class _Clock:
    """Seconds spent between laps, printed as they pass."""

    def __init__(self) -> None:
        self.started, self.laps = time.perf_counter(), dict[str, float]()

    def lap(self, name: str) -> None:
        seconds = time.perf_counter() - self.started - sum(self.laps.values())
        self.laps[name] = round(seconds, 1)
        print(f"{name}: {self.laps[name]:.1f} s", flush=True)


def train(stage: Stage, folder: Path) -> tuple[Singer, int]:
    """Trains the student and writes <folder>/singer: (the singer, steps of the whole run)."""
    settings, student = stage.settings, stage.student
    task = SingingTask(student, stage.train, settings, stage.recipe.seed, stage.teacher)
    with _watched(stage, folder) as watch:
        for _ in _run.train(task, stage.recipe, folder, watch):
            pass
    student.model.eval()
    home = folder / "singer"
    ranks.from_first(lambda: _write_singer(stage, home))
    card = about(stage)
    vocoder = open_vocoder(home, card, stage.codec)
    return Singer(student, stage.codec, card, vocoder), ranks.from_first(lambda: last_step(folder))


def _write_singer(stage: Stage, home: Path) -> None:
    """The trained student as an adapter, or merged where all of it was trained; once."""
    if _is_of(stage, home):
        return
    if stage.student.lora is None:
        halved = ("float16",) if stage.settings.base.from_scratch else ()  # else as the base is
        merge(stage.student, home, *halved)
    else:
        stage.student.save_adapter(home)
    describe(stage, home)
    folders.seal(home)


def _is_of(stage: Stage, folder: Path) -> bool:
    """Whether a folder holds what this recipe makes, whole: singer.json is written last, and says
    another recipe after a larger budget."""
    path = folder / "singer.json"
    return path.exists() and about_singer(folder)["recipe"] == about(stage).recipe


@contextmanager
def _watched(stage: Stage, folder: Path) -> Iterator[Watch | None]:
    """What evaluates the student while it trains; None without held-out songs."""
    settings = stage.settings
    if not stage.held_out:
        if settings.watch.patience is not None:
            ways = "leave watch.patience out, or keep songs from training"
            raise SettingsError(f"{stage.recipe.name}: no song is held out to stop by; {ways}")
        yield None
        return
    singer = Singer(stage.student, stage.codec, about(stage))
    heard = HeldOutLine(singer, stage.held_out_songs, folder, stage.recipe.seed)
    try:
        held_out, train = stage.held_out, settings.train
        yield Watch(stage.student, held_out, settings.watch, train, folder, heard)
    finally:
        heard.close()


def _merge(stage: Stage, folder: Path) -> float | None:
    """Writes <folder>/merged unless it is there, and gives the largest difference of its logits."""
    merged_folder = folder / "merged"
    if _is_of(stage, merged_folder):
        report = folder / "report.json"
        text = report.read_text(encoding="utf-8") if report.exists() else "{}"
        return json.loads(text).get("merged_largest_difference")
    merged = merge(stage.student, merged_folder)
    describe(stage, merged_folder, published=True)
    return merged.largest_difference


# --- what is said about it ------------------------------------------------------------------------
def describe(stage: Stage, folder: Path, published: bool = False) -> None:
    """Writes singer.json, and beside it the head that it speaks of, and the codec, where this disk
    alone has it. `published`: where the base lies stays out of it."""
    if stage.vocoder is not None:
        put_part(folder, "vocoder", folders.locate(_head_path(stage.settings)))
    card = about(stage)
    if published:
        card = replace(card, base=folders.public_name(card.base))
    write_about(folder, put_codec(folder, card))


def about(stage: Stage) -> About:
    """What singer.json will say. A folder that the user gave stays out of what is published."""
    settings, songs = stage.settings, stage.songs
    given = getattr(settings.songs, "folder", None)
    recipe = stage.recipe if given is None else with_songs(stage.recipe, "")
    made = About(
        codec={"kind": strict.kind_of(settings.codec), **strict.plain(settings.codec)},
        codec_fingerprint=stage.codec.fingerprint,
        slot_sizes=stage.codec.format.slot_sizes,
        base="" if settings.base.from_scratch else settings.base.path,
        tokens=settings.packing.row_tokens,
        writing=settings.writing,
        sampling=settings.sampling or settings.codec.sampling,
        styles=tuple(dict.fromkeys(song.style for song in songs))[:32],
        voices=tuple(dict.fromkeys(song.voice for song in songs)),
        languages=_languages(songs),
        grain=stage.train.about.grain,
        licences=_licences(stage),
        credits=tuple(dict.fromkeys(_credit(song) for song in songs if named(song.licence).credit)),
        recipe=recipe.published(),
        vocoder=stage.vocoder,
    )
    lora = stage.student.lora is not None
    return handed_down(made, settings.base, lora) if settings.base.singer else made


def _languages(songs: Sequence[Song]) -> tuple[str, ...]:
    """What the songs are in, the commonest first."""
    counts = Counter(primary(song.language) for song in songs if song.language.strip())
    return tuple(language for language, _ in counts.most_common())


def _licences(stage: Stage) -> dict[str, str]:
    """Of all that the singer was made from, by part."""
    settings = stage.settings
    licences = {"base": settings.base.terms, "codec": settings.codec.terms}
    if settings.teacher is not None:  # what a teacher was made from binds its pupil too
        teacher = about_singer(folders.locate(settings.teacher.singer))
        licences["teacher"] = _joint(teacher.get("licences") or {"teacher": "unknown"})
    if stage.vocoder is not None:  # what a head learnt from binds the singer that carries it
        head = read_config(folders.locate(_head_path(settings)))
        licences["vocoder"] = _joint(head["licences"])
    licences |= {f"song: {song.source or song.id}": song.licence for song in stage.songs}
    for step in settings.curation:  # a tool's weights may forbid what the songs allow
        licences |= getattr(step, "uses", {})
    return licences


def _joint(licences: Json) -> str:
    return ", ".join(dict.fromkeys(map(str, licences.values())))


def _head_path(settings: SingingSettings) -> str:
    return getattr(settings.vocoder, "path", "")


def _credit(song: Song) -> str:
    parts = filter(None, (named(song.licence).id, song.source))
    return f"{song.credit or song.id} ({', '.join(parts)})"


def summary(report: Json, folder: Path) -> str:
    """A run in a few lines."""
    lines = [
        f"{folder}: {report['steps']} steps on {report['minutes_of_song']:.1f} minutes of song"
    ]
    for name in ("before", "after"):
        if figures := report[name]:
            nats = ", ".join(f"{n:.3f}" for n in figures["nats_per_token"])
            kl = f"; KL {figures['kl_per_token']}" if figures.get("kl_per_token") else ""
            lines.append(f"  held-out nats per token by slot {name} training: {nats}{kl}")
    judged = report["judged"] or {}
    if "why" in judged:
        lines.append(f"  not judged: {judged['why']}")
    for row, figures in judged.get("shares", {}).items():
        shares = ", ".join(f"{name} {100 * value:.1f} %" for name, value in figures.items())
        lines.append(f"  {row}: {shares}")
    lines += [f"  adapter, {line}" for line in report_words.adapter_lines(report)]
    lines += [f"  known {line}" for line in report_words.memory_lines(report)]
    folders_made = f"the singer is {folder / 'singer'}, merged {folder / 'merged'}"
    return "\n".join([*lines, f"  listen to {folder / 'take.wav'}; {folders_made}"])
