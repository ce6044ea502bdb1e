"""A hub on loopback: enough of huggingface.co for pushing a folder in one commit, fetching it, and
reading a dataset.

It keeps what it is told and nothing else: repositories with their commits, blobs by sha256. It
checks what the real one checks where a mistake of ours would show: the sha256 of each uploaded
blob, the parent of a commit, the metadata of a card (a licence the hub knows, a base model that is
a hub name). `asked` lists the requests, in order.

    with StandInHub() as hub:
        os.environ["HF_ENDPOINT"] = hub.url      # and HF_HUB_DISABLE_XET=1
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

NAME = r"(?P<name>[\w.-]+/[\w.-]+)"


class StandInHub:
    """The state of the hub, its routes, and its server as a context manager."""

    def __init__(self) -> None:
        # name -> {"private", "commits": [(oid, {path: sha256})]}
        self.repos: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refuses = ""  # a piece of the paths that get "403 Forbidden"
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Desk", (_Desk,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> StandInHub:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """What a repository holds: path -> content."""
        return {path: self.blobs[sha] for path, sha in self._commit(name, revision)[1].items()}

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """(status, JSON value or bytes, headers) for one request."""
        if self.refuses and self.refuses in path:
            return 403, {"error": "you may not"}, {}
        for verb, pattern, route in ROUTES:
            match = re.fullmatch(pattern, path)
            if verb == method and match:
                parts = match.groupdict()
                if "name" in parts and parts["name"] not in self.repos:
                    return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
                return route(self, body=body, **parts)
        return (
            404,
            {"error": f"the stand-in hub does not know {method} {path}"},
            {"X-Error-Code": "EntryNotFound"},
        )

    def create(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or 'someone'}/{wanted['name']}"
        if name in self.repos:
            return 409, {"error": "exists", "url": f"{self.url}/{name}"}, {}
        self.repos[name] = {
            "private": wanted.get("visibility") == "private" or bool(wanted.get("private")),
            "commits": [(_oid(name), {})],
        }
        return 200, {"url": f"{self.url}/{name}", "name": name}, {}

    def validate(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        problems = card_problems(json.loads(body)["content"])
        return (
            (400 if problems else 200),
            {"errors": [{"message": text} for text in problems], "warnings": []},
            {},
        )

    def preupload(self, name: str, revision: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        files = json.loads(body)["files"]
        modes = [
            "lfs"
            if file["path"].endswith((".safetensors", ".model")) or file["size"] > 10**7
            else "regular"
            for file in files
        ]
        return (
            200,
            {
                "files": [
                    dict(path=f["path"], uploadMode=mode, shouldIgnore=False)
                    for f, mode in zip(files, modes, strict=True)
                ]
            },
            {},
        )

    def batch(self, name: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        answers = []
        for file in json.loads(body)["objects"]:
            link = {
                "upload": {"href": f"{self.url}/blob/{file['oid']}"},
                "verify": {"href": f"{self.url}/verify/{file['oid']}"},
            }
            answers.append(file if file["oid"] in self.blobs else {**file, "actions": link})
        return 200, {"transfer": "basic", "objects": answers}, {}

    def blob(self, sha: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if hashlib.sha256(body).hexdigest() != sha:
            return 400, {"error": "the blob is not what its name says"}, {}
        self.blobs[sha] = body
        return 200, {}, {}

    def verify(self, sha: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        return (200 if len(self.blobs.get(sha, b"")) == json.loads(body)["size"] else 404), {}, {}

    def commit(self, name: str, revision: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        with self.lock:
            parent, files = self._commit(name, revision)
            files = dict(files)
            for line in map(json.loads, body.splitlines()):
                key, value = line["key"], line["value"]
                if key == "header" and value.get("parentCommit") not in (None, parent):
                    return (
                        412,
                        {"error": "A commit has happened since. Please refresh and try again."},
                        {},
                    )
                if key == "file":
                    content = base64.b64decode(value["content"])
                    files[value["path"]] = hashlib.sha256(content).hexdigest()
                    self.blobs[files[value["path"]]] = content
                elif key == "lfsFile":
                    if value["oid"] not in self.blobs:
                        return 400, {"error": f"{value['path']}: its blob never came"}, {}
                    files[value["path"]] = value["oid"]
                elif key == "deletedFile":
                    del files[value["path"]]
            oid = _oid(parent + json.dumps(files, sort_keys=True))
            self.repos[name]["commits"].append((oid, files))
        return (
            200,
            {"commitOid": oid, "commitUrl": f"{self.url}/{name}/commit/{oid}", "success": True},
            {},
        )

    def info(
        self, name: str, body: bytes, revision: str = "main"
    ) -> tuple[int, Any, dict[str, str]]:
        oid, files = self._commit(name, revision)
        siblings = [{"rfilename": path, **self._about(sha)} for path, sha in files.items()]
        return (
            200,
            {
                "id": name,
                "modelId": name,
                "sha": oid,
                "private": self.repos[name]["private"],
                "siblings": siblings,
                "tags": [],
            },
            {},
        )

    def put(self, name: str, files: dict[str, bytes]) -> None:
        """A repository that holds these files, as if it had always been there."""
        shas = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
        self.blobs.update({shas[path]: content for path, content in files.items()})
        self.repos[name] = {"private": False, "commits": [(_oid(name), shas)]}

    def tree(
        self, name: str, revision: str, body: bytes, folder: str | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Everything below a folder: its folders, then its files."""
        within = f"{unquote(folder)}/" if folder else ""
        _, files = self._commit(name, revision)
        inside = {path: sha for path, sha in files.items() if path.startswith(within)}
        folders = {path[:at] for path in inside for at, letter in enumerate(path) if letter == "/"}
        entries = [
            {"type": "directory", "path": path_above, "oid": _oid(path_above)}
            for path_above in sorted(folders)
        ]
        return 200, entries + [self._entry(path, sha) for path, sha in inside.items()], {}

    def paths(self, name: str, revision: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """What stands at the paths asked for, of those that exist."""
        asked = (
            json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
        )
        entries = self.tree(name, revision, b"")[1]
        return 200, [entry for entry in entries if entry["path"] in asked], {}

    def _entry(self, path: str, sha: str) -> dict[str, Any]:
        return {"type": "file", "path": path, "oid": _oid(sha), **self._about(sha)}

    def resolve(
        self, name: str, revision: str, path: str, body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        oid, files = self._commit(name, revision)
        path = unquote(path)
        if path not in files:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
        return 200, self.blobs[files[path]], {"ETag": f'"{files[path]}"', "X-Repo-Commit": oid}

    def whoami(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        return (
            200,
            {"type": "user", "name": "someone", "orgs": [], "auth": {"type": "access_token"}},
            {},
        )

    def _commit(self, name: str, revision: str) -> tuple[str, dict[str, str]]:
        commits = self.repos[name]["commits"]
        return next((commit for commit in commits if commit[0] == revision), commits[-1])

    def _about(self, sha: str) -> dict[str, Any]:
        size = len(self.blobs[sha])
        return {
            "size": size,
            "blobId": _oid(sha),
            "lfs": {"oid": sha, "sha256": sha, "size": size, "pointerSize": 134},
        }


def card_problems(text: str) -> list[str]:
    """What the hub says against a card's metadata (the part of its rules that we could break)."""
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    data = yaml.safe_load(match.group(1)) if match else None
    if not isinstance(data, dict):
        return ["the card has no metadata"]
    problems = []
    if (
        not re.fullmatch(r"[a-z0-9.-]+", str(data.get("license", "")))
        or data["license"] == "unknown-licence"
    ):
        problems.append('"license" must be one of the known identifiers')
    if not isinstance(data.get("tags", []), list) or not all(
        isinstance(tag, str) for tag in data.get("tags", [])
    ):
        problems.append('"tags" must be a list of strings')
    if "base_model" in data and not re.fullmatch(r"[\w.-]+/[\w.-]+", str(data["base_model"])):
        problems.append('"base_model" must be a model id')
    if data.get("base_model_relation", "finetune") not in (
        "adapter",
        "merge",
        "quantized",
        "finetune",
    ):
        problems.append('"base_model_relation" is not one of the four')
    return problems


def _oid(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


ROUTES = (
    ("GET", r"/api/whoami-v2", StandInHub.whoami),
    ("POST", r"/api/repos/create", StandInHub.create),
    ("POST", r"/api/validate-yaml", StandInHub.validate),
    ("POST", rf"/api/models/{NAME}/preupload/(?P<revision>[^/]+)", StandInHub.preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", StandInHub.batch),
    ("PUT", r"/blob/(?P<sha>\w+)", StandInHub.blob),
    ("POST", r"/verify/(?P<sha>\w+)", StandInHub.verify),
    ("POST", rf"/api/models/{NAME}/commit/(?P<revision>[^/]+)", StandInHub.commit),
    ("GET", rf"/api/(?:models|datasets)/{NAME}", StandInHub.info),
    ("GET", rf"/api/(?:models|datasets)/{NAME}/revision/(?P<revision>[^/]+)", StandInHub.info),
    (
        "GET",
        rf"/api/(?:models|datasets)/{NAME}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?",
        StandInHub.tree,
    ),
    ("POST", rf"/api/(?:models|datasets)/{NAME}/paths-info/(?P<revision>[^/]+)", StandInHub.paths),
    ("GET", rf"(?:/datasets)?/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", StandInHub.resolve),
)


class _Desk(BaseHTTPRequestHandler):
    """One request: read it whole (also when it comes in chunks), ask the hub, answer."""

    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        path = urlsplit(self.path).path
        method = "GET" if self.command == "HEAD" else self.command
        self.hub.asked.append(f"{self.command} {path}")
        status, value, headers = self.hub.answer(method, path, self._body())
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if span and status == 200 and value is content:
            first, last = int(span[1]), min(int(span[2]), len(content) - 1)
            headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
            status, content = 206, content[first : last + 1]
            value = content
        self.send_response(status)
        for key, text in headers.items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(content)))
        self.send_header(
            "Content-Type", "application/octet-stream" if value is content else "application/json"
        )
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *_: object) -> None:
        """Quiet: `asked` remembers."""
