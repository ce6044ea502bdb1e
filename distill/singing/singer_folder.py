"""A singer on disk: its parameters in a stock form, and `singer.json` with all that a stock form
cannot say.

run folder   holds singer/ (and merged/)
adapter      adapter_config.json, adapter_model.safetensors (stock PEFT); distill.json, singer.json
merged       config.json, model.safetensors, tokenizer files (stock transformers); the same two

Beside either may stand vocoder/, a head of its own for the codec's codes (distill.vocoders.head);
singer.json then says what was measured of it, and so whether it or the codec's decoder makes the
sound. And codec/, where the codec is one that task codec made on this disk: it goes wherever the
singer goes, and singer.json names it as OWN_CODEC.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from distill.codecs import Codec
from distill.config import settings as strict
from distill.errors import AdapterError, FolderError, SettingsError
from distill.folders import MANIFEST, OWN_CODEC, Json, atomic_folder, damage, locate, write_atomic
from distill.lm.base import Quantisation
from distill.lm.held import check_held
from distill.lm.merge import load_merged
from distill.lm.student import Student, load
from distill.vocoders import Vocoder
from distill.vocoders.codec import CodecVocoder
from distill.vocoders.head import load_head
from distill.writing.prompts import Grain, WritingSettings
from distill.writing.sampling import Sampling

VERSION = 1
Sound = Literal["codec", "head"]


@dataclass(frozen=True)
class VocoderCard:
    """The head in vocoder/, and the run that compared it with the codec's decoder: mel L1 over
    `seconds` of held-out song. `better` is what the singer uses unless told otherwise.
    """

    fingerprint: str
    better: Sound
    mel_l1_head: float
    mel_l1_codec: float
    seconds: float


@dataclass(frozen=True)
class Forebear:
    """A singer that another one goes on from: its name, its folder's fingerprint, its recipe."""

    name: str
    fingerprint: str
    recipe: str = ""


@dataclass(frozen=True)
class About:
    """What singer.json says.

    languages: of its songs (ISO 639-1, the commonest first; () where nobody wrote them down).
    grain: how finely its songs were written. licences: of base, songs, ..., by name. credits: whom
    the songs' licences ask to be named. vocoder: of the head beside it, if there is one. lineage:
    the singers that it goes on from, the latest first.
    """

    codec: Json
    codec_fingerprint: str
    slot_sizes: tuple[int, ...]
    base: str
    tokens: int
    writing: WritingSettings = field(default_factory=WritingSettings)
    sampling: Sampling = field(default_factory=lambda: Sampling((0.0, 0.5)))
    styles: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    grain: Grain = "note"
    licences: dict[str, str] = field(default_factory=dict)
    credits: tuple[str, ...] = ()
    recipe: str = ""
    vocoder: VocoderCard | None = None
    lineage: tuple[Forebear, ...] = ()


def write_about(folder: Path, about: About) -> None:
    """Write singer.json."""
    row = asdict(about)
    if about.vocoder is None:
        del row["vocoder"]
    if not about.lineage:  # as earlier versions wrote it, which know no such key
        del row["lineage"]
    text = json.dumps({"version": VERSION, **row}, indent=1, ensure_ascii=False)
    write_atomic(folder / "singer.json", (text + "\n").encode())


def about_singer(folder: Path) -> Json:
    """singer.json as plain data. Raises FolderError when the folder holds no singer."""
    path = singer_folder(folder) / "singer.json"
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FolderError(
            f"{folder}: holds no singer ({error}); give a run folder, a merged folder or a hub id"
        ) from None
    if row.get("version") != VERSION:
        raise FolderError(
            f"{path}: version {row.get('version')} is not {VERSION}; use the distill that wrote it"
        )
    return row


def read_about(folder: Path) -> About:
    """singer.json, checked like a recipe."""
    row = about_singer(folder)
    row.pop("version")
    codec = row.pop("codec")
    about = strict.build({**row, "codec": {}}, About, str(folder / "singer.json"))
    return About(**{**about.__dict__, "codec": codec})


def singer_folder(folder: Path) -> Path:
    """The folder that holds singer.json: the folder itself, or its singer/."""
    inner = folder / "singer"
    is_run = not (folder / "singer.json").exists() and (inner / "singer.json").exists()
    return inner if is_run else folder


def open_singer(
    where: str | Path, dtype: str | None = None, quantise: Quantisation | None = None
) -> tuple[Student, Json, Path]:
    """(student, singer.json, folder) of a run folder, adapter, merged folder or hub id.

    `dtype`, `quantise`: how its weights are held; None: as they were when it was trained.
    Raises FolderError where there is none or a file is not what the folder's manifest says,
    AdapterError for another base.
    """
    folder = singer_folder(locate(str(where)))
    about = about_singer(folder)
    if (folder / MANIFEST).is_file() and (wrong := damage(folder)):
        raise FolderError(f"{folder}: damaged: {wrong}; fetch it again, or train or merge again")
    if not (folder / "adapter_config.json").exists():
        check_held(dtype, quantise)
        return load_merged(folder, dtype or "float32", quantise or "none"), about, folder
    try:
        return load(about["base"], folder, dtype, quantise), about, folder
    except FolderError as error:
        raise AdapterError(
            f"{where}: its base cannot be opened ({error}); put it there, or load merged"
        ) from None


def put_part(folder: Path, name: str, part: Path) -> None:
    """Copy the folder of a head or a codec into a singer's, whole, as `name`."""
    with atomic_folder(folder / name) as inside:
        for file in ("config.json", "weights.safetensors"):
            shutil.copyfile(part / file, inside / file)


def put_codec(folder: Path, about: About) -> About:
    """Copy a codec of our own that lies on this disk into the singer's folder; what singer.json
    then says."""
    codec = _innermost(about.codec)
    shipped = str(codec.get("path")).startswith("embedded/")
    if codec.get("kind") != "embedded" or shipped:
        return about
    path = Path(str(codec.get("path"))).expanduser()
    if not path.is_dir():
        return about
    put_part(folder, OWN_CODEC, path)
    return replace(about, codec=_with_path(about.codec, OWN_CODEC))


def codec_settings(folder: Path, about: About) -> Json:
    """A recipe's words for the codec of the singer in `folder`."""
    codec = _innermost(about.codec)
    # only that kind is put there
    beside = codec.get("kind") == "embedded" and codec.get("path") == OWN_CODEC
    return _with_path(about.codec, str(folder / OWN_CODEC)) if beside else about.codec


def _innermost(codec: Json) -> Json:
    """The one that encodes a stream, where a codec is one of tracks."""
    return _innermost(codec["codec"]) if isinstance(codec.get("codec"), dict) else codec


def _with_path(codec: Json, path: str) -> Json:
    if isinstance(codec.get("codec"), dict):
        return {**codec, "codec": _with_path(codec["codec"], path)}
    return {**codec, "path": path}


def open_vocoder(folder: Path, about: About, codec: Codec, wanted: Sound | None = None) -> Vocoder:
    """What makes a singer's sound: the head beside it where it measured better, else the codec; or
    the one `wanted`.

    Raises SettingsError for a head that is not there, CodecError for a damaged one or one of
    another codec.
    """
    if wanted not in (None, "codec", "head"):
        raise SettingsError(f"vocoder {wanted!r} is unknown; give codec or head")
    if wanted == "head" and about.vocoder is None:
        raise SettingsError(
            f"{folder}: has no vocoder head; take vocoder codec, or train a head for its codec"
        )
    if about.vocoder is None or (wanted or about.vocoder.better) == "codec":
        return CodecVocoder(codec)
    head = load_head(folder / "vocoder", codec)
    if head.fingerprint != about.vocoder.fingerprint:
        raise AdapterError(
            f"{folder / 'vocoder'}: is head {head.fingerprint[:12]}, singer.json speaks of "
            f"{about.vocoder.fingerprint[:12]}; copy the folder again, or take vocoder codec"
        )
    return head
