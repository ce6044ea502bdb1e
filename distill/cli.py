"""The command line: every verb of `VERBS`, below, is one call into the library.

What the library refuses is printed in one line, with exit status 2. Nothing heavy is imported
before a verb needs it.
"""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import distill
from distill.errors import DistillError, ElsewhereError, SettingsError
from distill.runtime import ranks, threads

if TYPE_CHECKING:
    from distill.config.recipe import Recipe

Call = Callable[[Namespace], object]  # does what was typed; what it gives is printed
Verb = Callable[[ArgumentParser], Call]  # says what may be typed, and gives the call

RENAMED = {"score": "record"}  # verbs of earlier versions


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; the exit status: 0, or 2 when the library refused, or 130 when interrupted."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    threads.share_cores()
    try:
        for verb in (sys.argv[1:] if arguments is None else arguments)[:1]:
            if now := RENAMED.get(verb):
                raise SettingsError(f"{verb} is called {now} now; type distill {now} ...")
        options = _parser().parse_args(arguments)
        result = options.verb(options)
    except ElsewhereError:
        return 2
    except DistillError as error:
        if ranks.speaks():
            print("distill: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("distill: stopped", file=sys.stderr)
        return 130
    if result is not None and ranks.is_first():
        print(result)
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="distill", description=distill.__doc__.partition("\n")[0])
    parser.add_argument("--version", action="version", version=distill.__version__)
    subparsers = parser.add_subparsers(required=True, metavar="VERB")
    for name, (words, verb) in VERBS.items():
        subparser = subparsers.add_parser(name, help=words, description=words)
        subparser.set_defaults(verb=verb(subparser))
    return parser


# --- verbs that read a recipe ---------------------------------------------------------------------


def _recipe_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", help="a file, or the name of one in recipes/")
    _set_argument(parser)


def _set_argument(parser: ArgumentParser) -> None:
    words = "change one setting, for example train.seconds=60"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=words)


def _engine_argument(parser: ArgumentParser) -> None:
    words = "who curates, encodes and records: local, ray (one begun here), or ray:ADDRESS"
    parser.add_argument("--engine", default="local", help=words)


def _recipe(options: Namespace) -> Recipe:
    from distill.config import recipe

    return recipe.load(options.recipe, _changes(options))


def _changes(options: Namespace) -> dict[str, str]:
    changes = {}
    for text in options.set:
        key, equals, value = text.partition("=")
        if not equals:
            example = "write it as key=value, for example train.seconds=60"
            raise SettingsError(f"--set {text}: {example}")
        changes[key] = value
    return changes


def _stage(name: str, makes_run: bool = False) -> Verb:
    """A stage of the pipeline, or `run`, which is all of them."""

    def verb(parser: ArgumentParser) -> Call:
        _recipe_arguments(parser)
        words = "your songs, for recipes that learn from a folder"
        parser.add_argument("--songs", metavar="FOLDER", help=words)
        _engine_argument(parser)
        if makes_run:
            words = "the run (default: adapters/RECIPE)"
            parser.add_argument("--out", type=Path, metavar="FOLDER", help=words)
        return call

    def call(options: Namespace) -> object:
        recipe = _recipe(options)  # before the heavy imports: a misspelt key is named at once
        from distill import pipeline

        folders = {"songs": options.songs} | ({"out": options.out} if makes_run else {})
        return getattr(pipeline, name)(recipe, **folders, engine=options.engine)

    return verb


def _check(parser: ArgumentParser) -> Call:
    _recipe_arguments(parser)
    words = "also what it will take: parameters, tokens, disk, memory, hours (trains some seconds)"
    parser.add_argument("--estimate", action="store_true", help=words)
    words = "your songs, for recipes that learn from a folder; with --estimate"
    parser.add_argument("--songs", metavar="FOLDER", help=words)

    def call(options: Namespace) -> str:
        # not by way of pipeline, which imports what it takes to train
        from distill.config import recipe

        asked = _recipe(options)
        if options.estimate:
            from distill import pipeline

            return pipeline.estimate(asked, songs=options.songs)
        if options.songs is not None:
            asked = recipe.with_songs(asked, options.songs)
        return "\n".join(recipe.check(asked))

    return call


def _songs(parser: ArgumentParser) -> Call:
    add = parser.add_argument
    add("what", help="a folder of recordings with lyrics, or a recipe")
    add("--out", type=Path, metavar="FOLDER", help="where the curated songs go (the cache)")
    words = "songs at a time (default: the cores, at most 4)"
    add("--workers", type=int, metavar="N", help=words)
    words = "also write the kept songs as ultrastar, webdataset, ..."
    add("--export", metavar="FORMAT", help=words)
    _engine_argument(parser)
    _set_argument(parser)

    def call(options: Namespace) -> object:
        from distill import pipeline
        from distill.config import recipe

        def load(name: str | Path) -> Recipe:
            return recipe.load(name, _changes(options))

        names = ("out", "workers", "export", "engine")
        return pipeline.songs(
            options.what, load, **{name: getattr(options, name) for name in names}
        )

    return call


# --- verbs that take a singer ---------------------------------------------------------------------


def _sing(parser: ArgumentParser) -> Call:
    add = parser.add_argument
    add("singer", help='"embedded", a run folder, a merged folder, or org/name of a hub')
    add("lyrics", nargs="?", help="what to sing; \\n begins a new line")
    add("--save", type=Path, metavar="FILE", help="where the take goes")
    words = "sing every line of this text file, one take each"
    add("--lines", type=Path, metavar="FILE", help=words)
    add("--out", type=Path, metavar="DIR", help="folder for those takes and takes.jsonl")
    words = 'notes to follow: rows of {"line", "notes": [[start_s, end_s, midi], ...]}'
    add("--score", type=Path, metavar="FILE", help=words)
    words = "also save each track apart, of a singer that has tracks"
    add("--stems", type=Path, metavar="FOLDER", help=words)
    add("--style", help='for example "folk, calm"')
    add("--voice", help="one that the singer knows")
    words = "of the words: en, es, zh, ... (that of the singer's songs; of several, the likeliest)"
    add("--language", help=words)
    add("--seed", type=int, help="the same seed sings the same take")
    add("--temperature", type=float)
    add("--device", help="cpu, cuda, mps (the best there is)")
    words = "what makes the sound (what measured better)"
    add("--vocoder", choices=("codec", "head"), help=words)
    return _sing_and_save


def _sing_and_save(options: Namespace) -> object:
    lyrics, lines, out, stems = options.lyrics, options.lines, options.out, options.stems
    if (lyrics is None) == (lines is None):
        raise SettingsError("sing: give either lyrics or --lines FILE")
    if lines is not None and out is None:
        raise SettingsError("sing: --lines needs --out DIR, the folder for the takes")
    if lyrics is not None and options.save is None:
        raise SettingsError("sing: give --save FILE.wav for the take of these lyrics")
    if lyrics is not None and options.score is not None:
        given = "--score gives notes to the lines of --lines FILE"
        raise SettingsError(f"sing: {given}; put these lyrics into a file")
    from distill.singing import takes
    from distill.singing.singer import load_singer

    path = None if options.singer == "embedded" else options.singer
    singer = load_singer(path, device=options.device, vocoder=options.vocoder)
    if stems is not None and not singer.codec.format.tracks:
        wanted = "a singer whose codec hears tracks apart; this one's hears songs whole"
        raise SettingsError(f"sing: --stems needs {wanted}")
    names = ("style", "voice", "seed", "temperature", "language")
    sampling = {name: getattr(options, name) for name in names}
    if lines is not None:
        return takes.sing_lines(singer, lines, out, score=options.score, stems=stems, **sampling)
    take = singer.sing(lyrics.replace("\\n", "\n"), **sampling)
    take.save(options.save)
    if stems is not None:
        take.save_stems(stems)
    return options.save


def _merge(parser: ArgumentParser) -> Call:
    parser.add_argument("run", type=Path, help="a run folder or an adapter")
    parser.add_argument("out", type=Path, help="the folder to write")
    words = "float32, bfloat16 or float16 (default: as the base is)"
    parser.add_argument("--dtype", metavar="TYPE", help=words)

    def call(options: Namespace) -> object:
        from distill import pipeline

        return pipeline.merge(options.run, options.out, dtype=options.dtype)

    return call


def _push(parser: ArgumentParser) -> Call:
    parser.add_argument("folder", type=Path, help="a merged folder")
    parser.add_argument("repo", help="org/name")
    parser.add_argument("--public", action="store_true", help="make it public (private otherwise)")
    parser.add_argument("--dry-run", action="store_true", help="only show what would go")

    def call(options: Namespace) -> object:
        from distill import hub

        private, dry_run = not options.public, options.dry_run
        return hub.push(options.folder, options.repo, private=private, dry_run=dry_run)

    return call


def _parts(parser: ArgumentParser) -> Call:
    def call(options: Namespace) -> str:
        from distill import pipeline

        return "\n".join(f"{kind}: {', '.join(names)}" for kind, names in pipeline.parts().items())

    return call


VERBS: dict[str, tuple[str, Verb]] = {
    "run": ("from songs to a singer, a report and a take", _stage("run", makes_run=True)),
    "check": ("say what a recipe means, before anything is done", _check),
    "encode": ("songs to codes", _stage("encode")),
    "record": ("record the teacher: a signal for every passage", _stage("record")),
    "train": ("train a recipe's student", _stage("train", makes_run=True)),
    "songs": ("look at songs, mend, annotate or set them aside; with a page on each", _songs),
    "sing": ("sing lyrics, or every line of a file", _sing),
    "merge": ("write a run's adapter and its base as one stock model", _merge),
    "push": ("send a merged folder to a hub, in one commit", _push),
    "parts": ("list what recipes may name", _parts),
}
