"""The API as pages, made from the docstrings: docs/api/index.html.

    make docs        # or: python docs/api.py, with the extra `docs` installed

Every module and package of distill but those that begin with `_`.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pdoc

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "api"
PRIVATE = r"!.*\._[a-z]"  # pdoc: no page for these


def modules() -> list[str]:
    """Dotted names of the public modules, packages among them."""
    paths = [path.relative_to(ROOT) for path in (ROOT / "distill").rglob("*.py")]
    names = {path.parent if path.name == "__init__.py" else path.with_suffix("") for path in paths}
    return sorted(".".join(n.parts) for n in names if not any(p[0] == "_" for p in n.parts))


if __name__ == "__main__":
    pdoc.render.configure(show_source=False, docformat="markdown")
    # a package brings its modules, unless its __all__ hides them; so each is named, and some twice
    warnings.filterwarnings("ignore", module="pdoc")
    pdoc.pdoc(*modules(), PRIVATE, output_directory=OUT)
    print(OUT / "index.html")
