"""Takes the voice out of a mix with a Demucs network, for songs without vocals; off by default.

Wraps `demucs` (MIT; `pip install 'distill[separation]'`), which runs the networks of Defossez 2021
(arXiv 2111.03600) and Rouard et al. 2023 (arXiv 2211.08553). Put it before alignment and notes.

The weights are not under the code's licence. Of Meta's, their author says that they "are not
covered by the MIT license, and are provided only for scientific purposes"
(github.com/facebookresearch/demucs/issues/327; also issue 508), although some copies on hubs are
labelled MIT. So `weights_licence` says "research only" unless you say otherwise: whoever uses other
weights states their licence. It stands in the song's fact `stems`, from where it belongs into the
licences of the result (`uses`).

A network only guesses at the voice. The accompaniment is the mix without that guess, so the two
always add up to the mix; what was missed of the voice is in it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distill.audio.resampling import resample_array
from distill.config import plain_yaml
from distill.config.ranges import Checked, share
from distill.curation.steps import Item, Sound
from distill.errors import FolderError, SettingsError
from distill.folders import locate
from distill.songs import Fact

STEP = "separation"
INSTALL = "pip install 'distill[separation]'"
VOCALS = "vocals"
FULL_SCALE = 0.999  # what is turned down reaches no further
CONFIDENCE = 0.5  # nobody has compared this voice with the true one
LEAST_SPREAD, LEAST_POWER = 1e-8, 1e-12  # of silence, which is divided by them
NETWORKS = ("demucs.htdemucs.HTDemucs", "demucs.hdemucs.HDemucs", "demucs.demucs.Demucs")


class Network(Protocol):
    """What is used of a Demucs network."""

    samplerate: int
    audio_channels: int
    sources: list[str]


@dataclass(frozen=True)
class Settings(Checked):
    """model: a hub id or folder in the layout of demucs 4.1, NAME.yaml with the networks' names and
    a .safetensors for each. weights_licence: of these weights. overlap: share of a segment that the
    next one repeats."""

    model: str = "adefossez/HTDemucs"
    weights_licence: str = "research only"
    overlap: float = share(one=False, default=0.25)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model or not self.weights_licence:
            text = "separation needs a model and the licence of its weights; name both"
            raise SettingsError(f"{text}, or leave the step out")

    @property
    def uses(self) -> Mapping[str, str]:
        """What else goes into the result, with its licence (`licences.most_restrictive`)."""
        return {f"tool: {self.model}": self.weights_licence}

    def curate(self, item: Item) -> Item:
        """The item with vocals and accompaniment that add up to its audio, unless it has vocals. If
        a stem would exceed full scale, all tracks are turned down alike. Raises SettingsError where
        demucs is not installed or the folder no Demucs model, FolderError where it is missing."""
        mix = item.tracks.get("audio")
        if mix is None or VOCALS in item.tracks:
            return item
        voice_CW = vocals(separator(self.model), mix, self.overlap)
        rest_CW = mix.wave_CW - voice_CW
        waves = {"audio": mix.wave_CW, VOCALS: voice_CW, "accompaniment": rest_CW}
        peak = max(float(np.abs(wave_CW).max(initial=0.0)) for wave_CW in waves.values())
        gain = np.float32(1.0 if peak <= 1 else FULL_SCALE / peak)
        tracks = {name: Sound(gain * wave_CW, mix.sample_rate) for name, wave_CW in waves.items()}
        stems = {"by": STEP, "weights": self.model, "weights_licence": self.weights_licence}
        item = replace(item, tracks=tracks).know(Fact("stems", stems, STEP, CONFIDENCE))
        part = float((voice_CW**2).sum() / max(float((mix.wave_CW**2).sum()), LEAST_POWER))
        text = f"voice separated by {self.model} (a guess; weights: {self.weights_licence}): "
        turned = "" if gain == 1 else f", all tracks turned down by {-20 * np.log10(gain):.1f} dB"
        return item.remark(STEP, "mended", f"{text}{part:.0%} of the power{turned}")


def vocals(network: Network, mix: Sound, overlap: float = 0.25) -> NDArray[np.float32]:
    """The voice in a mix, in the mix's own rate, channels and length: voice_CW."""
    import torch
    from demucs.apply import apply_model

    channels, length = mix.wave_CW.shape
    given_CW = resample_array(mix.wave_CW, mix.sample_rate, network.samplerate)
    if channels != network.audio_channels:
        given_CW = np.repeat(given_CW.mean(0, keepdims=True), network.audio_channels, axis=0)
    mean, spread = float(given_CW.mean()), float(given_CW.mean(0).std()) + LEAST_SPREAD
    batch_1CW = torch.from_numpy((given_CW - mean) / spread)[None]
    options = {"shifts": 0, "split": True, "overlap": overlap, "device": "cpu"}
    with torch.inference_mode():  # no random shifts: the same mix gives the same voice
        stems_1SCW = apply_model(network, batch_1CW, **options)
    voice_CW = stems_1SCW[0, list(network.sources).index(VOCALS)].numpy() * spread
    if channels != network.audio_channels:
        voice_CW = np.repeat(voice_CW.mean(0, keepdims=True), channels, axis=0)
    back_CW = resample_array(voice_CW.astype(np.float32), network.samplerate, mix.sample_rate)
    back_CW = back_CW[:, :length]
    return np.pad(back_CW, ((0, 0), (0, length - back_CW.shape[1])))


@functools.lru_cache(maxsize=1)
def separator(where: str) -> Network:
    """The network of a folder or hub id: safetensors into demucs' own classes, no other code."""
    try:
        from demucs.apply import BagOfModels
        from demucs.hf import load_safetensors_model
    except ImportError as error:
        raise SettingsError(f"separation: demucs cannot be imported ({error}); {INSTALL}") from None
    folder = locate(where)
    bag = _bag(folder, where)
    files = [folder / f"{name}.safetensors" for name in bag["models"]]
    for file in files:
        _check(file)
    models = [load_safetensors_model(file) for file in files]
    network: Network = BagOfModels(models, bag.get("weights"), bag.get("segment")).eval()
    if VOCALS not in network.sources:
        text = f"{where}: separates {', '.join(network.sources)}, and no vocals"
        raise SettingsError(f"{text}; name another model")
    return network


def _bag(folder: Path, where: str) -> dict[str, Any]:
    """What NAME.yaml says: `models`, and perhaps `weights` and `segment`."""
    sheets = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    if len(sheets) != 1:
        text = f"{where}: has {len(sheets)} .yaml files, a Demucs model has one"
        raise SettingsError(f"{text}; see adefossez/HTDemucs for the layout")
    bag = plain_yaml.data(sheets[0].read_text(encoding="utf-8"), str(sheets[0]))
    models = bag.get("models") if isinstance(bag, dict) else None
    names = models if isinstance(models, list) else []
    if not names or not all(str(name).isalnum() for name in names):
        raise SettingsError(f"{sheets[0]}: names no models; it must hold `models: [name, ...]`")
    return bag


def _check(file: Path) -> None:
    """Refuses a file that is not one of demucs' own networks with plain weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as opened:
            about = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise FolderError(f"{file}: cannot be read ({error}); fetch the model again") from None
    if (name := about.get("klass")) not in NETWORKS or "structure" in about:
        raise SettingsError(f"{file}: is no plain Demucs network ({name}); name another model")
    try:
        json.loads(about["args"]), json.loads(about["kwargs"])
    except (KeyError, ValueError):
        text = f"{file}: does not say how its network is built; name another model"
        raise SettingsError(text) from None
