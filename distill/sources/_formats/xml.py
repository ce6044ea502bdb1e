"""XML from strangers: a tree of elements, or one line saying why not.

A document may not define entities (a few lines of them unpack to gigabytes), may not nest without
end, and no other file is ever fetched for it. An .mxl is a zip that holds one score; it is unpacked
to a limit, whatever it promises.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from distill.errors import LyricsError

LARGEST_BYTES = 8 * 2**20  # of a score, unpacked
DEEPEST = 64


def read_score(path: Path) -> bytes:
    """The bytes of a .musicxml, .xml or .mxl file. LyricsError for one too large, or no zip."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            size = f"{path.stat().st_size:,} bytes"
            raise LyricsError(f"{path}: {size} are no song's score; cut it into songs")
        content = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); look at its path and rights"
        raise LyricsError(f"{path}: {reason}") from None
    return unpacked(content, str(path)) if content.startswith(b"PK") else content


def unpacked(content: bytes, where: str) -> bytes:
    """The score in an .mxl: the first root file that its META-INF/container.xml names."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as folder:
            container = tree(_member(folder, "META-INF/container.xml", where), where)
            root_file = next((e for e in container.iter() if e.tag.endswith("rootfile")), None)
            if root_file is None:
                raise LyricsError(f"{where}: its container.xml names no score; save it again")
            return _member(folder, root_file.get("full-path", ""), where)
    except (zipfile.BadZipFile, zlib.error, struct.error, KeyError, EOFError, OSError) as error:
        raise LyricsError(f"{where}: not a whole .mxl ({_short(error)}); save it again") from None
    except (NotImplementedError, RuntimeError, ValueError, OverflowError) as error:
        if isinstance(error, LyricsError):
            raise
        reason = f"this .mxl cannot be unpacked ({_short(error)}); save it again"
        raise LyricsError(f"{where}: {reason}") from None


def _member(folder: zipfile.ZipFile, name: str, where: str) -> bytes:
    info = folder.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reason = "is packed in a way .mxl does not know; save it again"
        raise LyricsError(f"{where}: {name[:40]!r} {reason}")
    with folder.open(info) as file:
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise LyricsError(f"{where}: unpacks to more than {LARGEST_BYTES:,} bytes; no song does")
    return content


def tree(content: bytes, where: str) -> Element:
    """The root. Raises LyricsError for what is not XML, defines entities, or nests too deep."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise LyricsError(f"{where}: elements nest {DEEPEST} deep; this is no score")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def entity(*about: object) -> None:
        reason = "defines or uses XML entities of its own; save it again as MusicXML"
        raise LyricsError(f"{where}: {reason}")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = entity
    parser.SkippedEntityHandler = entity
    try:
        parser.Parse(content, True)
        return builder.close()
    except expat.ExpatError as error:
        reason = f"not XML ({_short(error)}); save it again as MusicXML"
        raise LyricsError(f"{where}: {reason}") from None
    except (ValueError, LookupError, AssertionError) as error:
        if isinstance(error, LyricsError):
            raise
        reason = f"not XML that can be read ({_short(error)}); save it again in UTF-8"
        raise LyricsError(f"{where}: {reason}") from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__
