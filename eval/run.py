"""How well a singer sings lines it has never seen, beside what its codec and its songs allow.

    python eval/run.py [[NAME=]WHERE ...] [--teacher WHERE] [--suite eval/suites/held-out.yaml]
                       [--lines N] [--temperature T] [--out DIR]
    python eval/run.py --takes DIR/takes.jsonl

A row of takes.jsonl: {"line", "wav", "notes": [[start_s, end_s, midi], ...]}.

Rows of the table: `uncoded` (the songs' own audio), `codec` (the same through the codec and back:
the ceiling of every singer that uses it), then one row a singer, which follows the same scores.
Measured by `distill.measures`: words by free dictation and by forced choice, notes in tune by two
trackers, and controls. What cannot be measured here (no recogniser at hand) is said.
Free-running song is measured because teacher-forced loss hides failures; the nats stand beside it.

Writes OUT/report.html (players, pitch and words over spectrograms) and OUT/report.json:

    version, suite, lines, words {asked, distinct}, seed, temperature,
    rows, paired, explanations, absent, seconds_of_judging      as `distill.measures.judge` says
    singers {row: {where, nats, kl, seconds_of_audio, seconds_of_compute, real_time_factor}}
        nats: what Singer.nats gives, held-out
        kl: what `distill.teachers.model.kl` gives against --teacher, or null
        real_time_factor: seconds of audio per second of compute, all lines sung in one call
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import page
import soundfile
from rich.console import Console
from rich.table import Table

import distill
from distill import lyrics
from distill.config import settings
from distill.errors import DistillError, FolderError, SettingsError, SongError
from distill.measures import Performance, judge
from distill.singing.evaluate import ceilings, lines_of, sing, spread
from distill.singing.singer import Singer
from distill.sources import Source
from distill.teachers.model import kl

HERE = Path(__file__).parent
CEILINGS = ("uncoded", "codec")
NAMED = "[NAME=]WHERE"  # a singer on the command line
Rows = dict[str, list[Performance]]  # by the name of the row


@dataclass(frozen=True)
class Suite:
    """What is asked. `lines` are spread evenly over all lines of the songs."""

    songs: Source = settings.part("sources")
    lines: int = 64
    seed: int = 0
    temperature: float | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 2 and a line on standard error where something is wrong with what was given."""
    options = _options(arguments)
    try:
        options.singers = singers_by_row([*options.where, *options.singer])
        makes_report = takes_report if options.takes else singers_report
        performances, report = makes_report(options)
    except DistillError as error:
        print(f"eval: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    out = options.out or HERE / "reports" / _name(options)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    html = page.page(report, performances, options.examples)
    (out / "report.html").write_text(html, encoding="utf-8")
    Console(width=max(110, Console().width)).print(*tables_of(report))
    for why in report["absent"].values():
        print(f"not measured: {why}")
    print(f"{out / 'report.json'} {out / 'report.html'}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="eval/run.py", description="Judge singers on held-out lines."
    )
    singers, more = "singers; default: the embedded one", "the same as an option"
    parser.add_argument("where", nargs="*", metavar=NAMED, help=singers)
    parser.add_argument("--singer", action="append", default=[], metavar=NAMED, help=more)
    parser.add_argument("--teacher", help="also report the KL to this singer")
    parser.add_argument("--takes", type=Path, help="judge a takes.jsonl instead of a singer")
    parser.add_argument("--suite", type=Path, default=HERE / "suites" / "held-out.yaml")
    parser.add_argument("--lines", type=int, help="fewer lines than the suite asks")
    parser.add_argument("--temperature", type=float, help="another than the singer's own")
    parser.add_argument("--examples", type=int, default=12, help="lines on the page")
    parser.add_argument("--out", type=Path, help="default: eval/reports/<singer>")
    options = parser.parse_args(arguments)
    if options.lines is not None and options.lines < 1:
        parser.error(f"--lines is {options.lines}; give 1 or more")
    return options


def _name(options: argparse.Namespace) -> str:
    return options.takes.resolve().parent.name if options.takes else "-".join(options.singers)


def singers_by_row(singers: Sequence[str]) -> dict[str, str]:
    """Row -> where its singer is, from `name=where` or where alone, whose last part is the name.

    The embedded singer by default. Raises SettingsError for two rows of one name, or one named as a
    ceiling is.
    """
    by_row: dict[str, str] = {}
    for text in singers or ["embedded"]:
        name, equals, where = text.partition("=")
        row = name if equals else Path(name).name
        if row in by_row or row in CEILINGS:
            raise SettingsError(
                f"{text}: there is a row {row} already; give it a name, as in mine={text}"
            )
        by_row[row] = where if equals else name
    return by_row


# --- singers --------------------------------------------------------------------------------------


def singers_report(options: argparse.Namespace) -> tuple[Rows, dict[str, Any]]:
    """(performances by row, report) of some singers. The row `codec` is the first one's codec."""
    suite = settings.read(options.suite, Suite)
    held_out = suite.songs.load()
    asked = spread(lines_of(held_out), options.lines or suite.lines)
    temperature = suite.temperature if options.temperature is None else options.temperature
    performances: Rows = {}
    singers: dict[str, Any] = {}
    for row, where in options.singers.items():
        singer = load(where)
        if not performances:
            performances |= ceilings(asked, singer.codec)
        performances[row], spent = sing(singer, asked, suite.seed, temperature)
        seconds = sum(line.seconds for line in performances[row])
        singers[row] = {
            "where": where,
            "nats": singer.nats(held_out),
            "kl": kl(singer, held_out, load(options.teacher)) if options.teacher else None,
            "seconds_of_audio": seconds,
            "seconds_of_compute": spent,
            "real_time_factor": seconds / spent,
        }
    words = [word for each in asked for word in lyrics.words(each.line.text)]
    head = _head(options.suite.stem, len(asked), words, suite.seed, temperature)
    return performances, head | judge(performances) | {"singers": singers}


def _head(
    suite: str, lines: int, words: Sequence[str], seed: int | None, temperature: float | None
) -> dict[str, Any]:
    """What stands first in report.json."""
    return {
        "suite": suite,
        "lines": lines,
        "words": {"asked": len(words), "distinct": len(set(words))},
        "seed": seed,
        "temperature": temperature,
    }


def load(where: str) -> Singer:
    """A singer; `embedded` is the one that `load_singer()` loads when given nothing."""
    return distill.load_singer() if where == "embedded" else distill.load_singer(where)


# --- anybody's takes ------------------------------------------------------------------------------


def takes_report(options: argparse.Namespace) -> tuple[Rows, dict[str, Any]]:
    """(performances, report) of a takes.jsonl; its wav paths are relative to it."""
    path: Path = options.takes
    if not path.is_file():
        raise FolderError(
            f"{path}: there is no such file; `distill sing SINGER --lines FILE --out DIR` makes one"
        )
    rows = path.read_text(encoding="utf-8").splitlines()
    takes = [_take(path, number, row) for number, row in enumerate(rows, 1) if row.strip()]
    if not takes:
        raise SongError(f"{path}: holds no take; sing some lines first")
    words = [word for take in takes for word in take.words]
    head = _head(path.name, len(takes), words, None, None)
    performances = {"takes": takes}
    return performances, head | judge(performances, reference=None) | {"singers": {}}


def _take(path: Path, number: int, text: str) -> Performance:
    try:
        row = json.loads(text)
        notes = tuple(
            (float(start), float(end), float(midi))
            for start, end, midi in row["notes"]
            if midi is not None
        )
        wav = path.parent / row["wav"]
        wave_WC, sample_rate = soundfile.read(wav, dtype="float32", always_2d=True)
        line = str(row["line"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise SongError(
            f'{path}:{number}: not {{"line", "wav", "notes"}} ({error}); write it again'
        ) from None
    except (soundfile.LibsndfileError, OSError) as error:
        raise SongError(
            f"{path}:{number}: its sound cannot be read ({error}); sing it again"
        ) from None
    return Performance(line, tuple(lyrics.words(line)), notes, wave_WC.mean(1), sample_rate)


# --- the table ------------------------------------------------------------------------------------


def tables_of(report: dict[str, Any]) -> list[Table]:
    """Every row's shares in per cent with their intervals and its differences from the codec; and
    apart from them what must fail (the controls) and where the two trackers part."""
    asked = f"{report['lines']} lines, {report['words']['asked']} words"
    beside = [
        name
        for name, words in report["explanations"].items()
        if words.startswith("control") or name == "trackers_agree"
    ]
    figures = [name for name in report["explanations"] if name not in beside]
    table = Table("row", title=f"{asked}; per cent, 95 % intervals over lines")
    controls = Table("row", title="controls: the same takes against another line's words and notes")
    of_words = [name for name in page.WORDS if name in figures]
    against_codec = [f"{name} - codec" for name in of_words]
    for name in (*figures, *against_codec, "in tune / codec", "x real time"):
        table.add_column(name.replace("_", " "), justify="right")
    for name in beside:
        controls.add_column(name.replace("_", " "), justify="right")
    for row, result in report["rows"].items():
        against = report["paired"].get(row, {}).get("figures", {})
        spent = report["singers"].get(row, {}).get("real_time_factor")
        table.add_row(
            row,
            *(_share(result["figures"][name]) for name in figures),
            *(_share((against.get(name) or {}).get("difference")) for name in of_words),
            _share((against.get("in_tune") or {}).get("quotient")),
            "" if spent is None else f"{spent:.1f}",
        )
        controls.add_row(row, *(_share(result["figures"][name]) for name in beside))
    return [table, controls]


def _share(figure: dict[str, float] | None) -> str:
    if not figure:
        return ""
    value, low, high = (100 * figure[name] for name in ("value", "low", "high"))
    return f"{value:.1f}\n[dim]{low:.1f} to {high:.1f}[/dim]"


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
