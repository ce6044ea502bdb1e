"""A singer as a base (`base.singer`): one more voice for a singer that there is already.

An adapter goes on with its LoRA and its rows, on the base that it stands on, and stays an adapter
of that base. A merged singer is a base of its own: its rows go on, and beside them a new LoRA is
trained (or all of it, with adapter: null). What the first singer was made from, the second is made
from too: its licences, credits and recipe are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from distill.codecs import Codec
from distill.errors import SettingsError
from distill.folders import fingerprint, locate
from distill.lm.student import LoraSettings, Student, regraft
from distill.singing.singer_folder import About, Forebear, open_singer, read_about, singer_folder
from distill.tasks._singing_settings import BaseSettings, SingingSettings

SINGER_FILES = ("singer.json", "singer/singer.json", "adapter_config.json")


def refuse_singer(path: str) -> None:
    """SettingsError where a `base.path` is a singer: it has its codec's ids, and would get a second
    set."""
    folder = locate(path)
    if any((folder / name).exists() for name in SINGER_FILES):
        raise SettingsError(f"base.path {path}: is a singer, no LLM to graft; say base.singer")


def continued(settings: SingingSettings, codec: Codec, seed: int) -> Student:
    """The recipe's `base.singer`, ready to train on. SettingsError where the recipe's codec, layout
    or adapter is another than the singer's."""
    base, adapter = settings.base, settings.adapter
    folder = _folder(base)
    about = read_about(folder)
    _refuse_another_codec(base.singer, about, settings, codec)
    is_adapter = (folder / "adapter_config.json").exists()
    if is_adapter and adapter is None:
        raise SettingsError(
            f"base.singer {base.singer}: is an adapter, and adapter: null trains its base's weights"
            " too; merge it first (distill merge) and give the merged folder"
        )
    student, _, _ = open_singer(folder, base.dtype, base.quantise)
    print(
        f"base.singer {base.singer}: goes on with its rows{' and its LoRA' * is_adapter}; the "
        "optimiser's state is in no singer and starts afresh",
        flush=True,
    )
    if adapter is None:
        student.train_all()
    elif is_adapter:
        _go_on(student, adapter, base.singer)
    else:
        student = regraft(student, _name(base))
        student.adapt(adapter, seed)
    return student


def _go_on(student: Student, adapter: LoraSettings, name: str) -> None:
    """Training goes on with the singer's LoRA, which has the shape that it has."""
    its = student.lora
    assert its is not None
    if (its.rank, its.alpha) != (adapter.rank, adapter.alpha):
        raise SettingsError(
            f"base.singer {name}: has LoRA of rank {its.rank} and alpha {its.alpha}, the recipe's "
            f"is {adapter.rank} and {adapter.alpha}; give its own, or merge it and give the merged "
            "folder, which gets a new one"
        )
    student.set_dropout(adapter.dropout)


def _refuse_another_codec(name: str, about: About, settings: SingingSettings, codec: Codec) -> None:
    if about.codec_fingerprint != codec.fingerprint or about.slot_sizes != codec.format.slot_sizes:
        raise SettingsError(
            f"base.singer {name}: speaks codec {about.codec_fingerprint[:12]} with slots of "
            f"{list(about.slot_sizes)} codes, the recipe's is {codec.fingerprint[:12]} with "
            f"{list(codec.format.slot_sizes)}; give its own codec"
        )
    if about.writing.layout != settings.writing.layout:
        raise SettingsError(
            f"base.singer {name}: writes in layout {about.writing.layout}, the recipe in "
            f"{settings.writing.layout}; set writing.layout to its own"
        )


def _folder(base: BaseSettings) -> Path:
    return singer_folder(locate(base.singer))


def _name(base: BaseSettings) -> str:
    """Where the singer's own folder is: a run has it inside."""
    return base.singer if _folder(base) == locate(base.singer) else f"{base.singer}/singer"


# --- what it came from ----------------------------------------------------------------------------
def handed_down(about: About, base: BaseSettings, is_adapter: bool) -> About:
    """What a new singer's `about` says, with what its forebear (the recipe's `base.singer`) was
    made from."""
    folder = _folder(base)
    first = read_about(folder)
    own = {what: text for what, text in about.licences.items() if what != "base" or base.licence}
    forebear = Forebear(Path(base.singer).name, fingerprint(folder), first.recipe)
    stands_on_its_base = (folder / "adapter_config.json").exists() or not is_adapter
    return replace(
        about,
        base=first.base if stands_on_its_base else _name(base),
        styles=_union(about.styles, first.styles),
        voices=_union(about.voices, first.voices),
        licences=joined(first.licences or {"singer": "unknown"}, own),
        credits=_union(about.credits, first.credits),
        lineage=(forebear, *first.lineage),
    )


def joined(*licences: Mapping[str, str]) -> dict[str, str]:
    """The licences of several makers by part; of a part that has several, all, with commas."""
    parts: dict[str, dict[str, None]] = {}
    for given in licences:
        for what, texts in given.items():
            names = (text.strip() for text in texts.split(","))
            parts.setdefault(what, {}).update(dict.fromkeys(names))
    return {what: ", ".join(texts) for what, texts in parts.items()}


def _union(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*ours, *theirs]))
