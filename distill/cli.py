"""The command line: every verb is one call into the library.

    distill run RECIPE           from songs to a singer, a report and a take
    distill check RECIPE         what a recipe means, before anything is done
    distill songs FOLDER|RECIPE  songs looked at, mended, annotated or set aside, with a page on each
    distill encode|record|train RECIPE     one stage of it
    distill merge RUN OUT        a run's adapter and its base, as one stock model
    distill sing SINGER ...      a take, or one for every line of a file
    distill push FOLDER ORG/NAME a merged folder to a hub
    distill parts                what recipes may name

What the library refuses is printed in one line, with exit status 2. Nothing heavy is imported
before a verb needs it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import distill
from distill.errors import DistillError, SettingsError

RENAMED = {"score": "record"}  # verbs of earlier versions


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; gives the exit status: 0, or 2 when the library refused, or 130 when
    interrupted."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        _refuse_old_verb((sys.argv[1:] if arguments is None else arguments)[:1])
        said = _parser().parse_args(arguments)
        result = said.verb(said)
    except DistillError as error:
        print("distill: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("distill: stopped", file=sys.stderr)
        return 130
    if result is not None:
        print(result)
    return 0


def _refuse_old_verb(first: Sequence[str]) -> None:
    for verb in first:
        if verb in RENAMED:
            raise SettingsError(
                f"{verb} is called {RENAMED[verb]} now; type distill {RENAMED[verb]} ..."
            )


def _run(said: argparse.Namespace) -> Any:
    recipe = _recipe(said)  # before the heavy imports, so that a misspelt key is told at once
    from distill import pipeline

    return pipeline.run(recipe, songs=said.songs, out=said.out)


def _check(said: argparse.Namespace) -> Any:
    # not by way of pipeline, which imports what it takes to train
    from distill.config import recipe

    return "\n".join(recipe.check(_recipe(said)))


def _songs(said: argparse.Namespace) -> Any:
    from distill import pipeline
    from distill.config import recipe

    def load(name: str | Path) -> Any:
        return recipe.load(name, _changes(said))

    return pipeline.songs(said.what, load, out=said.out, workers=said.workers, export=said.export)


def _encode(said: argparse.Namespace) -> Any:
    recipe = _recipe(said)
    from distill import pipeline

    return pipeline.encode(recipe, songs=said.songs)


def _record(said: argparse.Namespace) -> Any:
    recipe = _recipe(said)
    from distill import pipeline

    return pipeline.record(recipe, songs=said.songs)


def _train(said: argparse.Namespace) -> Any:
    recipe = _recipe(said)
    from distill import pipeline

    return pipeline.train(recipe, songs=said.songs, out=said.out)


def _merge(said: argparse.Namespace) -> Any:
    from distill import pipeline

    return pipeline.merge(said.run, said.out)


def _parts(said: argparse.Namespace) -> Any:
    from distill import pipeline

    return "\n".join(f"{kind}: {', '.join(names)}" for kind, names in pipeline.parts().items())


def _push(said: argparse.Namespace) -> Any:
    from distill import hub

    return hub.push(said.folder, said.repo, private=not said.public, dry_run=said.dry_run)


def _sing(said: argparse.Namespace) -> Any:
    if (said.lyrics is None) == (said.lines is None):
        raise SettingsError("sing: give either lyrics or --lines FILE")
    if said.lines is not None and said.out is None:
        raise SettingsError("sing: --lines needs --out DIR, the folder for the takes")
    if said.lyrics is not None and said.save is None:
        raise SettingsError("sing: give --save FILE.wav for the take of these lyrics")
    if said.lyrics is not None and said.score is not None:
        raise SettingsError(
            "sing: --score gives notes to the lines of --lines FILE; put these lyrics into a file"
        )
    from distill.singing import takes
    from distill.singing.singer import load_singer

    where = None if said.singer == "embedded" else said.singer
    singer = load_singer(where, device=said.device, vocoder=said.vocoder)
    if said.stems is not None and not singer.codec.format.tracks:
        raise SettingsError(
            "sing: --stems needs a singer whose codec hears tracks apart; this one's hears songs "
            "whole"
        )
    sampling = {
        "style": said.style,
        "voice": said.voice,
        "seed": said.seed,
        "temperature": said.temperature,
    }
    if said.lines is not None:
        return takes.sing_lines(
            singer, said.lines, said.out, score=said.score, stems=said.stems, **sampling
        )
    take = singer.sing(said.lyrics.replace("\\n", "\n"), **sampling)
    take.save(said.save)
    if said.stems is not None:
        take.save_stems(said.stems)
    return said.save


def _recipe(said: argparse.Namespace) -> Any:
    from distill.config import recipe

    return recipe.load(said.recipe, _changes(said))


def _changes(said: argparse.Namespace) -> dict[str, str]:
    changes = {}
    for text in said.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise SettingsError(
                f"--set {text}: write it as key=value, for example train.seconds=60"
            )
        changes[key] = value
    return changes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="distill", description=distill.__doc__.partition("\n")[0])
    parser.add_argument("--version", action="version", version=distill.__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, call: Any, words: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=words, description=words)
        one.set_defaults(verb=call)
        return one

    run = verb("run", _run, "from songs to a singer, a report and a take")
    check = verb("check", _check, "say what a recipe means, before anything is done")
    encode = verb("encode", _encode, "songs to codes")
    record = verb("record", _record, "record the teacher: a signal for every passage")
    train = verb("train", _train, "train a recipe's student")
    songs = verb(
        "songs", _songs, "look at songs, mend, annotate or set them aside; with a page on each"
    )
    songs.add_argument("what", help="a folder of recordings with lyrics, or a recipe")
    songs.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where the curated songs go (the cache)"
    )
    songs.add_argument(
        "--workers", type=int, metavar="N", help="songs at a time (default: the cores, at most 4)"
    )
    songs.add_argument(
        "--export", metavar="FORMAT", help="also write the kept songs as ultrastar, webdataset, ..."
    )
    for one in (run, check, encode, record, train):
        one.add_argument("recipe", help="a file, or the name of one in recipes/")
    for one in (run, check, songs, encode, record, train):
        change = "change one setting, for example train.seconds=60"
        one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=change)
    for one in (run, encode, record, train):
        one.add_argument(
            "--songs", metavar="FOLDER", help="your songs, for recipes that learn from a folder"
        )
    for one in (run, train):
        one.add_argument(
            "--out", type=Path, metavar="FOLDER", help="the run (default: adapters/RECIPE)"
        )
    _parser_of_sing(verb("sing", _sing, "sing lyrics, or every line of a file"))
    merge = verb("merge", _merge, "write a run's adapter and its base as one stock model")
    merge.add_argument("run", type=Path, help="a run folder or an adapter")
    merge.add_argument("out", type=Path, help="the folder to write")
    push = verb("push", _push, "send a merged folder to a hub, in one commit")
    push.add_argument("folder", type=Path, help="a merged folder")
    push.add_argument("repo", help="org/name")
    push.add_argument("--public", action="store_true", help="make it public (private otherwise)")
    push.add_argument("--dry-run", action="store_true", help="only show what would go")
    verb("parts", _parts, "list what recipes may name")
    return parser


def _parser_of_sing(sing: argparse.ArgumentParser) -> None:
    sing.add_argument(
        "singer", help='"embedded", a run folder, a merged folder, or org/name of a hub'
    )
    sing.add_argument("lyrics", nargs="?", help="what to sing; \\n begins a new line")
    sing.add_argument("--save", type=Path, metavar="FILE", help="where the take goes")
    sing.add_argument(
        "--lines",
        type=Path,
        metavar="FILE",
        help="sing every line of this text file, one take each",
    )
    sing.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for those takes and takes.jsonl"
    )
    sing.add_argument(
        "--score",
        type=Path,
        metavar="FILE",
        help='notes to follow: rows of {"line", "notes": [[start_s, end_s, midi], ...]}',
    )
    sing.add_argument(
        "--stems",
        type=Path,
        metavar="FOLDER",
        help="also save each track apart, of a singer that has tracks",
    )
    sing.add_argument("--style", help='for example "folk, calm"')
    sing.add_argument("--voice", help="one that the singer knows")
    sing.add_argument("--seed", type=int, help="the same seed sings the same take")
    sing.add_argument("--temperature", type=float)
    sing.add_argument("--device", help="cpu, cuda, mps (the best there is)")
    sing.add_argument(
        "--vocoder", choices=("codec", "head"), help="what makes the sound (what measured better)"
    )
