"""For the tasks that learn to make sound (codec, vocoder): how far sounds are apart, vocoders
compared, sound to hear."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from distill import coded_songs
from distill.audio import files as audio_files
from distill.audio import stems
from distill.audio.codec_format import CodecFormat
from distill.audio.spectrogram import spectrogram_png
from distill.codecs import Codec
from distill.codecs._network import magnitude, melscale_fbanks
from distill.errors import SongError
from distill.folders import Json
from distill.songs import Song
from distill.vocoders import Vocoder

# About the rounding noise of 16-bit PCM: what lies below is nothing to learn.
MEL_FLOOR, STFT_FLOOR = 1e-4, 1e-3
SILENT_DBFS = -60.0  # what a head may at most say to a silent song's codes
LONGEST = 20.0  # seconds of one song that are measured, so that many are heard
SHORTEST = 0.25  # and at least so many: longer than any hop of the distance
# mel bands by window of the distance, in samples
BANDS = {256: 20, 512: 40, 1024: 80, 2048: 80, 4096: 0}


class SpectralDistance(nn.Module):
    """How far two waves are apart: (mel_B, stft_B).

    mel: mean |difference| of natural-log mel bands, averaged over windows of 256 ... 2048 samples.
    stft: mean |difference| of log magnitudes plus spectral convergence, || |A| - |B| || / || |B|
    ||, averaged over windows of 512 ... 4096, of which the longest wants a quarter of its length of
    sound.
    """

    def __init__(self, sample_rate: int):
        super().__init__()
        for window, bands in BANDS.items():
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)
            if not bands:
                continue
            mel_KB = melscale_fbanks(
                window // 2 + 1, 0.0, sample_rate / 2, bands, sample_rate, "slaney", "slaney"
            )
            self.register_buffer(f"mel_{window}", mel_KB, persistent=False)

    def forward(self, made_BW: Tensor, true_BW: Tensor) -> tuple[Tensor, Tensor]:
        mel, stft = [], []
        for window, bands in BANDS.items():
            made_BKT = magnitude(made_BW, getattr(self, f"window_{window}"), window // 4)
            true_BKT = magnitude(true_BW, getattr(self, f"window_{window}"), window // 4)
            if bands:
                mel_BK = getattr(self, f"mel_{window}").T
                away_BKT = _log(mel_BK @ made_BKT, MEL_FLOOR) - _log(mel_BK @ true_BKT, MEL_FLOOR)
                mel.append(away_BKT.abs().mean((1, 2)))
            if window > 256:
                logs_B = (
                    (_log(made_BKT, STFT_FLOOR) - _log(true_BKT, STFT_FLOOR)).abs().mean((1, 2))
                )
                # 1: silence divides by little
                norm_B = true_BKT.square().sum((1, 2)).add(1.0).sqrt()
                away_B = (made_BKT - true_BKT).square().sum((1, 2)).add(1e-8).sqrt()
                stft.append(logs_B + (away_B / norm_B).clamp_max(10.0))
        return torch.stack(mel).mean(0), torch.stack(stft).mean(0)


class Listening:
    """Sound and spectrograms of a run for TensorBoard, in a folder of their own: a resumed run's
    numbers begin with an order to forget all that came after them, and that would take the sounds
    along."""

    def __init__(self, folder: Path) -> None:
        # a second to import, and only a real run needs it
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / "tensorboard" / "sound"))

    def write(self, step: int, sounds: dict[str, Tensor], sample_rate: int) -> None:
        """Each wave_CW as a player (channels averaged) and a picture."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for name, wave_CW in sounds.items():
            wave_W = wave_CW.mean(0)
            self._board.add_audio(name, wave_W[None], step, sample_rate)
            png = spectrogram_png(wave_W.numpy(), sample_rate)
            picture = Summary.Image(encoded_image_string=png)
            value = Summary.Value(tag=f"{name}/spectrogram", image=picture)
            self._board._get_file_writer().add_summary(Summary(value=[value]), step)
        self._board.flush()

    def draw(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()

    def close(self) -> None:
        self._board.close()


def compare(
    vocoders: Mapping[str, Vocoder], codec: Codec, songs: Sequence[Song], seconds: float = 120.0
) -> Json:
    """Vocoders on the same held-out codes, in one run: mel L1 from the song at the highest of their
    sample rates, level of silence (dBFS), peak, mean (DC) and times real time; `better`: the
    nearest of those that keep silence silent.

    The codec's own decoder, named "codec", stands however it treats silence. Raises SongError
    without any audio.
    """
    figures: Json = distances(vocoders, codec, songs, seconds, codec.format.slots)
    still_FS = silence(codec, 4 * max(1, round(codec.format.frame_rate)))
    for name, vocoder in vocoders.items():
        level = float(vocoder.decode(still_FS).square().mean().sqrt())
        figures[name]["silence_dbfs"] = 20 * float(torch.log10(torch.tensor(max(level, 1e-9))))
    silent = {name for name in vocoders if figures[name]["silence_dbfs"] <= SILENT_DBFS}
    fit = [name for name in vocoders if name in silent or name == "codec"]
    figures["better"] = min(fit or vocoders, key=lambda name: figures[name]["mel_l1"])
    return figures


def sounds(song: Song, format: CodecFormat) -> bool:
    """Whether the song has all that a codec of this format hears."""
    return all(track in song.tracks for track in format.tracks or ("audio",))


def sound_of(song: Song, format: CodecFormat, sample_rate: int) -> Tensor:
    """wave_CW of what a codec of this format hears, at any rate (Hz)."""
    return stems.read(stems.files(song, format), replace(format, sample_rate=sample_rate))


def silence(codec: Codec, frames: int) -> Tensor:
    """codes_FS of silence in the midst of silence."""
    hop = round(codec.format.sample_rate / codec.format.frame_rate)
    codes_FS = codec.encode(torch.zeros(codec.format.channels, 3 * frames * hop))
    return codes_FS[frames : 2 * frames].cpu()


def distances(
    vocoders: Mapping[str, Vocoder], codec: Codec, songs: Sequence[Song], seconds: float, slots: int
) -> Json:
    """What `compare` measures of sung codes, cut to the first `slots`, by vocoder; and the seconds
    heard."""
    rate = max(vocoder.sample_rate for vocoder in vocoders.values())
    distance, heard = SpectralDistance(rate), 0.0
    sums = {name: _Sums() for name in vocoders}
    for song, codes_FS in _coded(codec, songs, seconds):
        true_CW = sound_of(song, codec.format, rate)
        length = len(codes_FS) / codec.format.frame_rate
        for name, vocoder in vocoders.items():
            started = time.perf_counter()
            made_CW = vocoder.decode(codes_FS[:, :slots])
            compute = time.perf_counter() - started
            resampled_CW = audio_files.resample(made_CW, vocoder.sample_rate, rate)
            whole_CW = whole(resampled_CW, round(length * rate))
            with torch.inference_mode():
                mel_B = distance(whole_CW, whole(true_CW, whole_CW.shape[1]))[0]
            sums[name].add(made_CW, float(mel_B.mean()), length, compute)
        heard += length
    if not heard:
        raise SongError(
            f"no held-out song with {SHORTEST} s of audio to compare vocoders on; name some"
        )
    return {"seconds": heard} | {name: sums[name].figures(heard) for name in vocoders}


def _coded(codec: Codec, songs: Sequence[Song], seconds: float) -> Iterator[tuple[Song, Tensor]]:
    """Songs with the first of their codes, all slots, until `seconds` of them have come."""
    least, most, left = (round(s * codec.format.frame_rate) for s in (SHORTEST, LONGEST, seconds))
    for song in songs:
        if not sounds(song, codec.format) or left < least:
            continue
        codes_FS = coded_songs.codes_of(song, codec)[: min(most, left)]
        if len(codes_FS) >= least:
            left -= len(codes_FS)
            yield song, codes_FS


@dataclass
class _Sums:
    """What is measured of one vocoder, weighted by seconds; the highest peak."""

    mel: float = 0.0
    mean: float = 0.0
    compute: float = 0.0
    peak: float = 0.0

    def add(self, wave_CW: Tensor, mel: float, seconds: float, compute: float) -> None:
        self.mel += mel * seconds
        self.mean += float(wave_CW.mean().abs()) * seconds
        self.compute += compute
        self.peak = max(self.peak, float(wave_CW.abs().max()))

    def figures(self, seconds: float) -> dict[str, float]:
        return {
            "mel_l1": self.mel / seconds,
            "peak": self.peak,
            "mean": self.mean / seconds,
            "times_real_time": seconds / self.compute,
        }


def end_to_end(waves: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(the waves as one along their last axis, where each of them ends). It takes them off the
    list, so that a data set is never held twice."""
    ends_N = torch.tensor([wave.shape[-1] for wave in waves]).cumsum(0)
    joined = waves[0].new_empty((*waves[0].shape[:-1], int(ends_N[-1])))
    for stop in reversed(ends_N.tolist()):
        wave = waves.pop()
        joined[..., stop - wave.shape[-1] : stop] = wave
    return joined, ends_N


def moment(ends_N: Tensor, length: int, generator: torch.Generator) -> tuple[int, int]:
    """(start, stop) of a random moment of songs laid end to end, which end at `ends_N`: `length`
    long, or all of a song that is shorter, and never from one song into the next."""
    at = int(torch.randint(int(ends_N[-1]), (), generator=generator))
    song = int(torch.searchsorted(ends_N, at, right=True))
    first, end = int(ends_N[song - 1]) if song else 0, int(ends_N[song])
    at = max(first, min(at - length // 2, end - length))
    return at, min(at + length, end)


def whole(wave_CW: Tensor, samples: int) -> Tensor:
    """Exactly `samples` long: cut, or followed by silence."""
    return torch.nn.functional.pad(wave_CW[:, :samples], (0, max(0, samples - wave_CW.shape[1])))


def _log(x: Tensor, floor: float) -> Tensor:
    return x.clamp_min(floor).log()
