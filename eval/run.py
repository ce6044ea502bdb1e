"""How well a singer sings lines it has never seen, beside what its codec and its songs allow.

    python eval/run.py [[NAME=]WHERE ...] [--teacher WHERE] [--suite eval/suites/held-out.yaml]
                       [--lines N] [--temperature T] [--out DIR]
    python eval/run.py --takes DIR/takes.jsonl         # {"line", "wav", "notes": [[start_s, end_s, midi]]}

Rows: `uncoded` (the songs' own audio), `codec` (the same through the codec and back: the ceiling of
every singer that uses it), then one row a singer, which follows the same scores. Judged by
`distill.measures`: notes in tune, words by forced choice, and a control of each. Free-running song
is judged because teacher-forced loss hides failures; the nats stand beside it.

Writes OUT/report.html (players, pitch and words over spectrograms) and OUT/report.json:

    version, suite, lines, words {asked, distinct}, seed, temperature,
    rows, paired, explanations, seconds_of_judging      exactly as `distill.measures.judge` returns them
    singers {row: {where, nats, kl, seconds_of_audio, seconds_of_compute, real_time_factor}}
        nats: what Singer.nats gives, held-out; kl: what `distill.teachers.model.kl` gives against --teacher, or null;
        real_time_factor: seconds of audio per second of compute, singing all lines in one call
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
from distill.teachers.model import kl

HERE = Path(__file__).parent
CEILINGS = ("uncoded", "codec")


@dataclass(frozen=True)
class Suite:
    """What is asked. `lines` are spread evenly over all lines of the songs."""

    songs: Any = settings.part("sources")
    lines: int = 64
    seed: int = 0
    temperature: float | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 2 and one line on standard error where something is wrong with what was given."""
    options = _options(arguments)
    try:
        options.places = places([*options.where, *options.singer])
        performances, report = (
            takes_report(options.takes) if options.takes else singers_report(options)
        )
    except DistillError as error:
        print(f"eval: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    out = options.out or HERE / "reports" / _name(options)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (out / "report.html").write_text(
        page.page(report, performances, options.examples), encoding="utf-8"
    )
    Console(width=max(100, Console().width)).print(table(report))
    print(f"{out / 'report.json'} {out / 'report.html'}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="eval/run.py", description="Judge singers on held-out lines."
    )
    parser.add_argument(
        "where", nargs="*", metavar="[NAME=]WHERE", help="singers; default: the embedded one"
    )
    parser.add_argument(
        "--singer",
        action="append",
        default=[],
        metavar="[NAME=]WHERE",
        help="the same as an option",
    )
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
    return options.takes.resolve().parent.name if options.takes else "-".join(options.places)


def places(singers: Sequence[str]) -> dict[str, str]:
    """Row -> where its singer is: `name=where`, or the last part of where; the embedded one by
    default.

    Raises SettingsError for two rows of one name, or one named as a ceiling is.
    """
    found: dict[str, str] = {}
    for text in singers or ["embedded"]:
        name, equals, where = text.partition("=")
        row = name if equals else Path(name).name
        if row in found or row in CEILINGS:
            raise SettingsError(
                f"{text}: there is a row {row} already; give it a name, as in mine={text}"
            )
        found[row] = where if equals else name
    return found


# --- singers --------------------------------------------------------------------------------------


def singers_report(
    options: argparse.Namespace,
) -> tuple[dict[str, list[Performance]], dict[str, Any]]:
    """(performances by row, report) of one or more singers. The codec row is the first singer's
    codec."""
    suite = settings.read(options.suite, Suite)
    held_out = suite.songs.load()
    asked = spread(lines_of(held_out), options.lines or suite.lines)
    temperature = suite.temperature if options.temperature is None else options.temperature
    performances: dict[str, list[Performance]] = {}
    singers: dict[str, Any] = {}
    for row, where in options.places.items():
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
    head = {
        "suite": options.suite.stem,
        "lines": len(asked),
        "words": {"asked": len(words), "distinct": len(set(words))},
        "seed": suite.seed,
        "temperature": temperature,
    }
    return performances, head | judge(performances) | {"singers": singers}


def load(where: str) -> Any:
    """A singer; `embedded` is the one that `load_singer()` loads when given nothing."""
    return distill.load_singer() if where == "embedded" else distill.load_singer(where)


# --- anybody's takes ------------------------------------------------------------------------------


def takes_report(path: Path) -> tuple[dict[str, list[Performance]], dict[str, Any]]:
    """(performances, report) of a takes.jsonl; its wav paths are relative to it."""
    if not path.is_file():
        raise FolderError(
            f"{path}: there is no such file; `distill sing SINGER --lines FILE --out DIR` writes "
            "one"
        )
    performances = {
        "takes": [
            _take(path, number, text)
            for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if text.strip()
        ]
    }
    if not performances["takes"]:
        raise SongError(f"{path}: holds no take; sing some lines first")
    words = [word for take in performances["takes"] for word in take.words]
    head = {
        "suite": path.name,
        "lines": len(performances["takes"]),
        "words": {"asked": len(words), "distinct": len(set(words))},
        "seed": None,
        "temperature": None,
    }
    return performances, head | judge(performances, reference=None) | {"singers": {}}


def _take(path: Path, number: int, text: str) -> Performance:
    try:
        row = json.loads(text)
        notes = tuple(
            (float(start), float(end), float(midi))
            for start, end, midi in row["notes"]
            if midi is not None
        )
        wave_WC, sample_rate = soundfile.read(
            path.parent / row["wav"], dtype="float32", always_2d=True
        )
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


def table(report: dict[str, Any]) -> Table:
    """Every row's shares in per cent with their intervals, and what the pairing with the codec
    says."""
    any_row = next(iter(report["rows"].values()))
    asked = f"{report['lines']} lines, {report['words']['asked']} words"
    sheet = Table(title=f"{asked}; per cent, 95 % intervals over lines")
    sheet.add_column("row")
    for name in any_row["figures"]:
        sheet.add_column(name.replace("_", " "), justify="right")
    sheet.add_column("words - codec", justify="right")
    sheet.add_column("in tune / codec", justify="right")
    sheet.add_column("x real time", justify="right")
    for row, result in report["rows"].items():
        against = report["paired"].get(row, {}).get("figures", {})
        spent = report["singers"].get(row, {}).get("real_time_factor")
        sheet.add_row(
            row,
            *(_share(figure) for figure in result["figures"].values()),
            _share((against.get("word_error") or {}).get("difference")),
            _share((against.get("in_tune") or {}).get("quotient")),
            "" if spent is None else f"{spent:.1f}",
        )
    return sheet


def _share(figure: dict[str, Any] | None) -> str:
    if not figure:
        return ""
    return f"{100 * figure['value']:.1f}\n[dim]{100 * figure['low']:.1f} to {100 * figure['high']:.1f}[/dim]"


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
