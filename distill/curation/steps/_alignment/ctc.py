"""Forced alignment with a CTC model of the hub: characters against what a network hears.

Every character may be stayed in, and a blank may stand between any two and must between two alike
(Graves et al., 2006); the best path through that lattice says where each character is (Kürzinger et
al., 2020, arXiv 2007.09127). A word's confidence is the mean probability of its characters on the
path. Long recordings are heard in windows that overlap, of which only the inner parts are kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distill.audio.resampling import resample_array
from distill.curation.steps import Sound
from distill.errors import SettingsError
from distill.lyrics import pinyin, pronounce

Ids = NDArray[np.int64]
Model = tuple[Any, Any]  # a network of `transformers`, and its processor
WINDOW_SECONDS, OVERLAP_SECONDS = 30.0, 4.0


class Heard(NamedTuple):
    """logp_TV: log-probabilities every `frame_seconds`; tokens: ids by character; blank: an id."""

    logp_TV: NDArray[np.float32]
    frame_seconds: float
    tokens: Mapping[str, int]
    blank: int


def force(logp_TV: NDArray[np.float32], ids_N: Ids, blank: int) -> Ids | None:
    """The best path: each frame's index in `ids_N`, -1 on blanks; None where they do not fit."""
    frames, count = len(logp_TV), len(ids_N)
    if count == 0:
        return np.full(frames, -1)
    repeats = int((ids_N[1:] == ids_N[:-1]).sum())
    if frames < count + repeats:
        return None
    class_S = np.full(2 * count + 1, blank)
    class_S[1::2] = ids_N
    hop_S = np.zeros(len(class_S), bool)  # from one character to the next without a blank
    hop_S[3::2] = ids_N[1:] != ids_N[:-1]
    best_S = np.full(len(class_S), -np.inf)
    best_S[:2] = logp_TV[0][class_S[:2]]
    came_TS = np.zeros((frames, len(class_S)), np.uint8)
    for t in range(1, frames):
        step_S = np.concatenate([[-np.inf], best_S[:-1]])
        skip_S = np.where(hop_S, np.concatenate([[-np.inf, -np.inf], best_S[:-2]]), -np.inf)
        ways_KS = np.stack([best_S, step_S, skip_S])
        came_TS[t] = ways_KS.argmax(0)
        best_S = ways_KS.max(0) + logp_TV[t][class_S]
    state = len(class_S) - 1 if best_S[-1] >= best_S[-2] else len(class_S) - 2
    path = np.full(frames, -1)
    for t in range(frames - 1, -1, -1):
        path[t] = state // 2 if state % 2 else -1
        state -= int(came_TS[t, state])
    return path


def spell(word: str, tokens: Mapping[str, int]) -> list[int]:
    """A word in the model's characters: as written, else upper case, without accents, or Roman."""
    ids: list[int] = []
    for sign in unicodedata.normalize("NFC", word):
        plain = unicodedata.normalize("NFD", sign)[0]
        han = re.match(f"[{pinyin.HAN}]", sign)
        roman = "".join(pinyin.readings(sign)) if han else pronounce.roman(sign).strip()
        for attempt in (sign, sign.upper(), plain, plain.upper(), roman, roman.upper()):
            if attempt and all(letter in tokens for letter in attempt):
                ids += [tokens[letter] for letter in attempt]
                break
    return ids


def hear(sound: Sound, model: str, network: Model | None = None) -> Heard:
    """What a CTC model (hub id or folder) hears. `network`: as `load` gives it."""
    import torch

    net, processor = network or load(model)
    rate = int(processor.feature_extractor.sampling_rate)
    wave_W = resample_array(sound.mono(), sound.sample_rate, rate)
    vocabulary = processor.tokenizer.get_vocab()
    # samples from row to row; 20 ms of them where a network does not say
    stride = int(np.prod(getattr(net.config, "conv_stride", (rate // 50,))))
    kept = round((WINDOW_SECONDS - OVERLAP_SECONDS) * rate / stride)
    step, margin = kept * stride, round(OVERLAP_SECONDS / 2 * rate / stride) * stride
    rows = []
    for start in range(0, max(len(wave_W), 1), step):
        window_W = wave_W[max(0, start - margin) : start + step + margin]
        if len(window_W) < rate // 10:  # 0.1 s, less than a network can hear
            break
        inputs = processor.feature_extractor(window_W, sampling_rate=rate, return_tensors="pt")
        with torch.inference_mode():
            logp_TV = torch.log_softmax(net(**inputs).logits[0].float(), -1).numpy()
        skip = min(margin, start) // stride
        rows.append(logp_TV[skip : skip + kept] if start + step < len(wave_W) else logp_TV[skip:])
    logp_TV = np.concatenate(rows) if rows else np.zeros((0, len(vocabulary)), np.float32)
    return Heard(logp_TV, stride / rate, vocabulary, int(processor.tokenizer.pad_token_id))


def load(model: str) -> Model:
    """Model and processor of a folder or hub id, on the CPU. Raises SettingsError without them."""
    from distill.runtime import torchaudio_standin

    torchaudio_standin.install()
    import transformers

    try:
        processor = transformers.AutoProcessor.from_pretrained(model)
        network = transformers.AutoModelForCTC.from_pretrained(model, use_safetensors=True)
    except (OSError, ValueError, KeyError) as problem:
        words = f"alignment.model: {model} is no CTC model that can be read"
        reason = str(problem).splitlines()[0]
        raise SettingsError(f"{words} ({reason}); give a hub id or folder") from None
    return network.eval(), processor
