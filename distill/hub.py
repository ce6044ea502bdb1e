"""Publishing a singer: the licence gate, the model card, one atomic commit.

What goes to a hub is a merged folder: stock transformers weights and tokenizer, `singer.json`
(codec, layout, what it was made from), a card, and `eval.json` where there is one. No pickle and no
code, so that nobody has to trust us. Everything is checked before the first byte leaves: the
folder's own hashes, the licences of all that it was made from, the card's metadata. Then all files
go up in one commit on the parent that we saw, so that `main` never points at half a model, and what
the hub then reports is compared with what was sent.

The licence of the whole is the one that the folder's own card states, or else what follows from the
parts: the `licences` of base, codec, songs and teacher in `singer.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

import distill
from distill import folders
from distill.errors import HubError, first_line
from distill.folders import Json
from distill.licences import UNKNOWN, allows, may_carry, most_restrictive, named
from distill.singing.report_words import adapter_lines, memory_lines

Contents = Mapping[str, Path | bytes]  # of files, by their name in the repository
NEVER = {".py", ".pyc", ".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".npy", ".so", ".exe"}
NEEDED = ("config.json", "singer.json", "tokenizer_config.json")
# a teacher is not needed, but where one is named its licence counts
PARTS = ("base", "codec", "song")
_REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_MERGED = "push a merged folder (distill merge RUN OUT)"
_WEIGHTS = (".safetensors", ".safetensors.index.json")


@dataclass(frozen=True)
class Push:
    """What went, or would go: sizes of files in bytes, the card, the commit (None: a dry run)."""

    repo: str
    files: dict[str, int]
    card: str
    commit: str | None = None

    def __str__(self) -> str:
        lines = [f"{size:>12,}  {name}" for name, size in sorted(self.files.items())]
        total = f"{sum(self.files.values()):>12,}  bytes in {len(self.files)} files"
        end = f"pushed to {self.repo}, commit {self.commit}"
        if self.commit is None:
            end = f"dry run: nothing was sent to {self.repo}"
        return "\n".join([*lines, total, end])


def push(
    folder: str | Path,
    repo_id: str,
    private: bool = True,
    dry_run: bool = False,
    token: str | None = None,
) -> Push:
    """Sends a merged folder to `repo_id` ("org/name") in one commit; a dry run only says what.

    The card is README.md, else written from `singer.json` and `eval.json`. `token` None: that of
    `hf auth login` or HF_TOKEN; HF_ENDPOINT chooses the hub. HubError when the folder, a licence or
    the card must not go, or the hub refuses.
    """
    folder = Path(folder)
    if not _REPO.fullmatch(repo_id):
        raise HubError(f"{repo_id}: not the name of a repository; write it as org/name")
    report = folder / "report.json"
    if (folder / "merged" / "config.json").is_file():
        # a run folder: what goes is its merged model, with the run's report
        folder = folder / "merged"
    results = next((path for path in (folder / "eval.json", report) if path.is_file()), None)
    text = _checked_card(folder, repo_id, results, report)
    paths = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    paths |= {"eval.json": results} if results else {}
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    sizes["README.md"] = len(text.encode())
    if dry_run:
        return Push(repo_id, sizes, text)
    contents: Contents = {**paths, "README.md": text.encode()}
    try:
        api = HfApi(token=token, library_name="distill")
        return Push(repo_id, sizes, text, _send(api, repo_id, private, contents, sizes))
    except HubError:
        raise
    except (HfHubHTTPError, HFValidationError, ValueError, OSError, RuntimeError) as error:
        login = "run `hf auth login` or set HF_TOKEN"
        hint = login if "401" in str(error) else "nothing was committed; try again"
        raise HubError(f"{repo_id}: the hub refused ({first_line(error)}); {hint}") from error


def _checked_card(folder: Path, repo_id: str, results: Path | None, report: Path) -> str:
    """The card of a folder that may go, its own or a written one; its licence passed the gate."""
    about = examine(folder)
    own = folder / "README.md"
    text = (
        own.read_text(encoding="utf-8") if own.is_file() else card(folder, repo_id, results, report)
    )
    licence = check_card(text, where=str(own) if own.is_file() else "the card")
    gate(licence, licences_of(about), where=f"{folder}/singer.json")
    return text


def examine(folder: Path) -> Json:
    """`singer.json` of a folder that may go to a hub. HubError: a thing missing or unsafe."""
    for name in NEEDED:
        if not (folder / name).is_file():
            raise HubError(f"{folder}: has no {name}; {_MERGED}")
    files = _files(folder)
    if not any(path.suffix == ".safetensors" for path in files):
        raise HubError(f"{folder}: has no weights in safetensors; {_MERGED}")
    for path in files:
        if path.suffix.lower() in NEVER or path.is_symlink():
            raise HubError(f"{path}: code, pickles and links never go to a hub; remove it")
    if (folder / folders.MANIFEST).is_file() and (wrong := folders.damage(folder)):
        raise HubError(f"{folder}: damaged: {wrong}; merge again")
    about = _json(folder / "singer.json")
    beside = _codec_path(about.get("codec")) == folders.OWN_CODEC
    for part, named_there in (("codec", beside), ("vocoder", about.get("vocoder"))):
        if named_there and not (folder / part / "config.json").is_file():
            fault = f"singer.json speaks of a {part} that is not there"
            raise HubError(f"{folder}: {fault}; merge again")
        if (folder / part).is_dir() and (wrong := folders.damage(folder / part)):
            raise HubError(f"{folder / part}: damaged: {wrong}; merge again")
    if "auto_map" in _json(folder / "config.json"):
        fault = "auto_map names code to run; a singer is a stock architecture"
        raise HubError(f"{folder}/config.json: {fault}")
    return about


def licences_of(about: Mapping[str, object]) -> dict[str, str]:
    """{part: licences, with commas} of singer.json; songs together; "unknown": none is named."""
    stated = about.get("licences")
    by_part: dict[str, dict[str, None]] = {part: {} for part in PARTS}
    for key, texts in (stated if isinstance(stated, Mapping) else {}).items():
        part = "song" if str(key).startswith("song") else str(key)
        names = (text.strip().lower() or "unknown" for text in str(texts).split(","))
        by_part.setdefault(part, {}).update(dict.fromkeys(names))
    codec = about.get("codec")
    ours = isinstance(codec, Mapping) and str(codec.get("path")).startswith("embedded/")
    if ours and not by_part["codec"]:
        by_part["codec"] = {"apache-2.0": None}  # it ships inside this package, under its licence
    return {part: ", ".join(names) or "unknown" for part, names in by_part.items()}


def gate(licence: str, licences: Mapping[str, str], where: str) -> None:
    """HubError, naming the part, unless a singer under `licence` may be made from these parts:
    a licence is unknown, forbids it, or asks for more than `licence` gives. Not legal advice."""
    terms = [(part, name) for part, names in licences.items() for name in names.split(", ")]
    for part, name in terms:
        if named(name) is UNKNOWN:
            fault = f"the licence of {part} is {name}"
            raise HubError(f"{where}: {fault}; what nobody may share is not pushed")
        if reason := allows(name, "publish", part, licence):
            raise HubError(f"{where}: {part} is under {name}: {reason}; train without it")
    if named(licence) is UNKNOWN or named(licence).hub_id != licence:
        wanted = "state a licence that the hub knows, in lower case"
        raise HubError(f"{where}: a singer under {licence!r}; {wanted}")
    for part, name in terms:
        if reason := may_carry(licence, name, part):
            ways = "train without it, or state another licence"
            raise HubError(f"{where}: {part} is under {name}: {reason}; {ways}")


def follows(licences: Mapping[str, str]) -> str:
    """The licence of a singer where nobody named one: the most restrictive of its parts."""
    return most_restrictive(licences).hub_id


def card(
    folder: str | Path, repo_id: str, results: Path | None = None, report: Path | None = None
) -> str:
    """The model card of a merged folder: metadata, then card.md with the figures of `results`, and
    what the run's `report` says of the adapter and of what is remembered."""
    folder = Path(folder)
    about, config = _json(folder / "singer.json"), _json(folder / "config.json")
    licences = licences_of(about)
    run = _json(report) if report is not None and report.is_file() else {}
    base = str(about.get("base", ""))
    what = {"base": base, "codec": _codec_in_words(about.get("codec"))}
    if vocoder := about.get("vocoder"):
        what["vocoder"] = f"a head; what makes the sound: {vocoder['better']}"
    rows = [(part, what.get(part, ""), names) for part, names in licences.items()]
    credits = "\n".join(f"- {credit}" for credit in about.get("credits") or ())
    template = Template(resources.files("distill").joinpath("card.md").read_text(encoding="utf-8"))
    body = template.substitute(
        name=repo_id.partition("/")[2],
        repo=repo_id,
        version=distill.__version__,
        architecture=(config.get("architectures") or ["causal LM"])[0],
        parts=_table(("part", "what", "licence"), rows),
        recipe=str(about.get("recipe") or "not recorded").strip(),
        opening=_opening_in_words(folder),
        styles=", ".join(about.get("styles") or ()) or "none named",
        credits=credits or "Nobody asks to be named.",
        results=_results(results),
        adapter=_listed(adapter_lines(run)),
        memory=_listed(memory_lines(run)),
    )
    languages = [str(language) for language in about.get("languages") or ("en",)]
    metadata = yaml.safe_dump(_metadata(base, licences, languages), sort_keys=False)
    return f"---\n{metadata}---\n\n{body}"


def _metadata(
    base: str, licences: Mapping[str, str], languages: Sequence[str]
) -> dict[str, object]:
    """What stands between --- at the head of the card."""
    tags = ["singing", "music", "lyrics-to-song", "audio-codec"]
    data: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-to-audio",
        "license": follows(licences),
        "language": list(languages),
        "tags": [*tags, "distillation"] if "teacher" in licences else tags,
    }
    if _REPO.fullmatch(base) and not base.startswith("embedded/") and not Path(base).exists():
        # "merge" would mean several bases
        data |= {"base_model": base, "base_model_relation": "finetune"}
    return data


def _opening_in_words(folder: Path) -> str:
    """What stands before the text of a song, for servers that are given ids or text."""
    path = folder / "distill.json"
    ids = _json(path).get("opening") if path.is_file() else None
    if not ids:
        return "nothing: give its ids with `add_special_tokens=False`"
    tokens = _json(folder / "tokenizer.json").get("added_tokens") or ()
    names = {token["id"]: token["content"] for token in tokens}
    listed = ", ".join(f"`{names.get(id, '?')}` (id {id})" for id in ids)
    return f"{listed}, which its tokenizer writes by itself"


def _codec_in_words(codec: object) -> str:
    """Its kind and where its weights lie; of tracks also which, and the codec of each."""
    if not isinstance(codec, Mapping):
        return ""
    kind, inner = str(codec.get("kind", "")), codec.get("codec")
    if isinstance(inner, Mapping):
        return f"{kind} ({', '.join(codec.get('tracks') or ())}) of {_codec_in_words(inner)}"
    path = _codec_path(codec)
    if path == folders.OWN_CODEC:
        return f"{kind}, in codec/ beside the singer"
    if not path.startswith("embedded/") and Path(path).exists():  # here, and nowhere else
        needs = "loading needs it, and `codec.path` in singer.json to name where it lies"
        return f"{kind}, in a folder of its maker: {needs}"
    return f"{kind}, {path}" if path else kind


def _codec_path(codec: object) -> str:
    """Where its weights lie, or those of the codec of its tracks."""
    if not isinstance(codec, Mapping):
        return ""
    inner = codec.get("codec")
    return _codec_path(inner) if isinstance(inner, Mapping) else str(codec.get("path") or "")


def check_card(text: str, where: str) -> str:
    """The licence that a card states. Refuses, offline, what the hub would refuse or not show."""
    try:
        data = ModelCard(text).data.to_dict()
    except (ValueError, TypeError, yaml.YAMLError) as error:
        fault = f"its metadata cannot be read ({first_line(error)})"
        raise HubError(f"{where}: {fault}; begin it with --- and YAML") from error
    for key in ("license", "library_name", "pipeline_tag", "tags"):
        if not data.get(key):
            ways = "add it, or remove README.md to have a card written"
            raise HubError(f"{where}: its metadata has no {key}; {ways}")
    if not isinstance(data["tags"], list) or not all(isinstance(tag, str) for tag in data["tags"]):
        raise HubError(f"{where}: tags must be a list of words")
    return str(data["license"])


def _send(
    api: HfApi, repo_id: str, private: bool, contents: Contents, sizes: Mapping[str, int]
) -> str:
    """One commit: these files there, weights of an earlier push gone; gives its id."""
    api.create_repo(repo_id, private=private, exist_ok=True)
    before = api.model_info(repo_id)
    if private and not before.private:
        raise HubError(f"{repo_id}: is public already; say --public if that is meant")
    names = [file.rfilename for file in before.siblings or []]
    stale = [name for name in names if name.endswith(_WEIGHTS) and name not in contents]
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(name, content) for name, content in contents.items()),
        *(CommitOperationDelete(name) for name in stale),
    ]
    message = f"distill {distill.__version__}"
    commit = api.create_commit(
        repo_id, operations, commit_message=message, parent_commit=before.sha
    )
    after = api.model_info(repo_id, revision=commit.oid, files_metadata=True)
    there = {file.rfilename: file for file in after.siblings or []}
    for name, content in contents.items():
        file = there.get(name)
        sha256 = file.lfs.sha256 if file and file.lfs else None
        if file is None or file.size != sizes[name] or (sha256 and sha256 != _sha256(content)):
            raise HubError(f"{repo_id}: {name} is not on the hub as it was sent; push again")
    return str(commit.oid)


def _files(folder: Path) -> list[Path]:
    """Every file of the folder but hidden ones, in order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return [path for path in files if "/." not in f"/{path.relative_to(folder).as_posix()}"]


def _sha256(content: Path | bytes) -> str:
    if isinstance(content, bytes):
        return folders.sha256_bytes(content)
    return folders.sha256_file(content)


def _json(path: Path) -> Json:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HubError(f"{path}: cannot be read ({first_line(error)}); merge again") from error
    if not isinstance(value, dict):
        raise HubError(f"{path}: is not a JSON object; merge again")
    return value


def _results(path: Path | None, most: int = 40) -> str:
    """The numbers of `eval.json` as a table; figures deeper than four names stay in the file."""
    if path is None:
        return "Not evaluated yet."
    rows = list(_figures(_json(path), ()))
    rest = f"\n\n{len(rows) - most} more figures stand in `eval.json`." if len(rows) > most else ""
    return _table(("measure", "value"), rows[:most]) + rest


def _figures(value: object, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, bool | int | float):
        yield " / ".join(names), f"{value:.4g}" if isinstance(value, float) else str(value)
    elif isinstance(value, Mapping) and len(names) < 4:
        for name, inner in value.items():
            yield from _figures(inner, (*names, str(name)))


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "Not measured."


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    cells = ([str(cell).replace("|", "/") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
