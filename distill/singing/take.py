"""A take: a waveform, the codes it was decoded from, and the score it was sung to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from distill.audio import files as audio_files
from distill.audio import stems
from distill.audio.codec_format import CodecFormat
from distill.errors import SettingsError
from distill.vocoders import Vocoder


@dataclass(frozen=True)
class Take:
    """wave_CW (full scale +-1) at `sample_rate` Hz, codes_FS, and the score that was sung.

    notes: (start s, end s, MIDI pitch or None for a rest). stems: each track's own wave_CW, where
    the codec encodes tracks apart; wave_CW is then their mix.
    """

    wave_CW: Tensor
    sample_rate: int
    codes_FS: Tensor
    notes: tuple[tuple[float, float, float | None], ...]
    pieces: tuple[str, ...]
    text: str
    seed: int
    compute_seconds: float
    stems: dict[str, Tensor] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return self.wave_CW.shape[1] / self.sample_rate

    def save(self, path: str | Path) -> Path:
        """Write a WAV file (16 bit)."""
        audio_files.write(path, self.wave_CW, self.sample_rate)
        return Path(path)

    def save_stems(self, folder: str | Path) -> list[Path]:
        """Write each track as <track>.wav into a folder, all turned down alike where one passes
        full scale. Raises SettingsError for a take that is not of tracks.
        """
        if not self.stems:
            raise SettingsError(
                "this singer's codec hears songs as a whole, so there are no stems; use a singer "
                "of a codec of tracks"
            )
        peak = max(float(wave_CW.abs().max()) for wave_CW in self.stems.values())
        gain = 1.0 if peak <= 1.0 else stems.LOUDEST / peak
        paths = {track: Path(folder) / f"{track}.wav" for track in self.stems}
        for track, wave_CW in self.stems.items():
            audio_files.write(paths[track], gain * wave_CW, self.sample_rate)
        return list(paths.values())

    def _repr_html_(self) -> str:
        from distill.audio.spectrogram import player_html

        return player_html(self.wave_CW.mean(0).numpy(), self.sample_rate, self.text)


def decode(
    codes_FS: Tensor, vocoder: Vocoder, format: CodecFormat
) -> tuple[Tensor, dict[str, Tensor]]:
    """(wave_CW of these codes, the stems it is mixed of)."""
    wave_CW = vocoder.decode(codes_FS).cpu()
    return stems.mixed(wave_CW, format), stems.apart(wave_CW, format)


def join(takes: Sequence[Take], vocoder: Vocoder, format: CodecFormat, text: str) -> Take:
    """Takes one after another as one; decoded together, so that no seam is heard."""
    if len(takes) == 1:
        return replace(takes[0], text=text)
    codes_FS = torch.cat([take.codes_FS for take in takes])
    started, notes, now = time.perf_counter(), [], 0.0
    for take in takes:
        notes += [(start + now, end + now, midi) for start, end, midi in take.notes]
        now += len(take.codes_FS) / format.frame_rate
    wave_CW, tracks = decode(codes_FS, vocoder, format)
    return replace(
        takes[0],
        wave_CW=wave_CW,
        codes_FS=codes_FS,
        notes=tuple(notes),
        pieces=tuple(piece for take in takes for piece in take.pieces),
        text=text,
        compute_seconds=sum(t.compute_seconds for t in takes) + time.perf_counter() - started,
        stems=tracks,
    )
