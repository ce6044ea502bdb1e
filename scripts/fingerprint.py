"""Hashes of what must not change where only the form of the code does.

    python scripts/fingerprint.py    # a few minutes; before and after, on the same machine

It prints one line each for the codes of 20 seeded takes of the embedded singer, for the logits of
that singer merged, and for the weights of recipe quickstart-alone after 20 steps. Only the command
line and the public names are used, so that the same file runs on any version. Other machines and
builds of torch give other hashes.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

LINES = (
    "row row row your boat",
    "gently down the stream",
    "twinkle twinkle little star",
    "how I wonder what you are",
)
TAKES = 20
STEPS = 20


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print("codes of 20 takes  ", of_takes())
        print("merged logits      ", of_merged(Path(folder) / "merged"))
        print("weights, 20 steps  ", of_training(Path(folder) / "run"))


def of_takes() -> str:
    """Half of the takes by voice and seed alone, half along the score of a take before."""
    import distill

    singer, digest = distill.load_singer(device="cpu"), hashlib.sha256()
    voices = singer.about.voices
    for number in range(TAKES):
        line, voice = LINES[number % len(LINES)], voices[number % len(voices)]
        take = singer.sing(line, voice=voice, seed=number, temperature=None if number % 2 else 0.7)
        digest.update(take.codes_FS.numpy().tobytes())
    return digest.hexdigest()[:16]


def of_merged(folder: Path) -> str:
    distill_cli("merge", "embedded/singer", str(folder), "--dtype", "float32")
    import torch  # load_singer has run before: torchaudio can be imported, which transformers wants
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits_BTV = model(torch.arange(0, 3200, 50)[None]).logits
    return hashlib.sha256(logits_BTV.numpy().tobytes()).hexdigest()[:16]


def of_training(folder: Path) -> str:
    distill_cli(
        "train", "quickstart-alone", "--set", f"train.steps={STEPS}", "--set", "train.seconds=null",
        "--out", str(folder),
    )  # fmt: skip
    from safetensors.torch import load_file

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "singer" / "adapter_model.safetensors").items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def distill_cli(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "distill", *arguments], check=True, stdout=subprocess.DEVNULL
    )


if __name__ == "__main__":
    main()
