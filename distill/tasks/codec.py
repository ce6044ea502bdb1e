"""Train the small codec from songs: hear a moment, encode it, decode it, compare the spectra.

No adversary: log-mel distance at four resolutions and STFT distance at four (Yamamoto 2020, arXiv
1910.11480) suffice for synthesised voices and cost a fraction of a discriminator. The first
`unquantised` micro-batches teach encoder and decoder alone, while the quantiser remembers latents;
then k-means fills the codebooks from what it remembers, and from there codes move with what they
code.

Quantiser dropout (arXiv 2107.03312): a share of the crops uses only the first few slots, so that 1
... S slots all sing; half of those use as many as the singer will. A share of the crops is
disturbed (another pitch, colour, or a second crop on top), so that sounds are heard that are in no
song. Everything that chance decides for micro-batch k is drawn from (seed, k) and everything else
lives in `state()`; so a resumed run repeats the interrupted one exactly.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.audio import files as audio_files
from distill.codecs._network import CodecNetwork, NetworkSettings
from distill.codecs._source import off_pitch, yin
from distill.codecs.embedded import EmbeddedCodec, save_codec
from distill.config.ranges import Checked, above, at_least, share
from distill.config.recipe import Recipe
from distill.config.settings import part
from distill.errors import SettingsError, SongError
from distill.folders import Json
from distill.songs import Song
from distill.sources import Source
from distill.tasks import Task, parameter_groups
from distill.tasks._held_out import embedded_held_out
from distill.tasks._sound import SHORTEST, SpectralDistance, end_to_end, moment
from distill.training.trainer import TrainSettings, numbered


@dataclass(frozen=True)
class Settings(Checked):
    """The recipe of task codec. `hours` caps the sound kept in memory (173 MB an hour at 24 kHz),
    stems too."""

    songs: Source = part("sources")
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(seconds=600, learning_rate=1.2e-3)
    )
    network: NetworkSettings = field(default_factory=NetworkSettings)
    batch: int = at_least(1, default=8)
    crop_frames: int = at_least(8, default=32)
    hours: float = above(0, default=3.0)
    unquantised: int = 250
    dropout: float = share(default=0.4)
    sung_slots: int | None = None
    disturbed: float = share(default=0.0)
    stft_weight: float = 0.5
    pitch_weight: float = 0.5
    commitment_weight: float = 0.25
    source_weight: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sung_slots is not None and not 1 <= self.sung_slots <= self.network.slots:
            raise SettingsError(
                f"sung_slots is {self.sung_slots}, the network has {self.network.slots}; give 1 "
                f"to {self.network.slots}"
            )

    def run(self, recipe: Recipe, folder: Path) -> str:
        """Trains the codec and measures it, in a folder."""
        from distill.tasks import _run  # the trainer, which checking a recipe does not need

        return _run.run(self.task(recipe.seed), recipe, folder)

    def task(self, seed: int) -> CodecTask:
        """The task, its songs read. Raises SongError when none is left to train on."""
        # codebooks move with the batches that a process sees
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise SettingsError(
                "task codec: several processes would grow several codebooks; start it with one"
            )
        songs = [song for song in self.songs.load() if song.split == "train"]
        buffer = SongBuffer(songs, self.network.sample_rate, self.hours, seed)
        return CodecTask(self, buffer, seed, {song.licence for song in songs})


@dataclass(frozen=True)
class Batch:
    """Crops with what chance decided for them: slots_B (how many each may use) and a seed."""

    wave_BW: Tensor
    slots_B: Tensor
    seed: int


class SongBuffer:
    """All songs, and their stems where they have some, in one int16 tensor; a crop never crosses
    into the next."""

    def __init__(self, songs: list[Song], sample_rate: int, hours: float, seed: int):
        chosen, room = [], hours * 3600
        tracks = [
            track
            for song in songs
            for track in (song.audio, song.vocals, song.accompaniment)
            if track
        ]
        order = torch.randperm(len(tracks), generator=torch.Generator().manual_seed(seed)).tolist()
        for index in order:
            if room <= 0:
                break
            chosen.append(tracks[index])
            room -= audio_files.seconds(tracks[index])
        if not chosen:
            raise SongError(
                "task codec: no training song has audio; name a source with recordings, split train"
            )
        with ThreadPoolExecutor() as pool:
            waves = list(pool.map(partial(_read, sample_rate=sample_rate), chosen))
        self.samples_W, self.ends_N = end_to_end(waves)

    def crop(self, samples: int, generator: torch.Generator) -> Tensor:
        """A random moment as float32, `samples` long; a shorter song is followed by silence."""
        start, stop = moment(self.ends_N, samples, generator)
        piece_W = self.samples_W[start:stop].float() / 32767
        return torch.nn.functional.pad(piece_W, (0, samples - len(piece_W)))


class CodecTask(Task):
    """A codec, learning to sing back what it hears."""

    def __init__(
        self, settings: Settings, songs: SongBuffer | None, seed: int, licences: Iterable[str] = ()
    ):
        self.settings, self.songs, self.licences = settings, songs, licences
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = CodecNetwork(settings.network)
        self.distance = SpectralDistance(settings.network.sample_rate)
        self.seen = torch.zeros((), dtype=torch.int64)  # micro-batches learned from

    def batches(self, generator: torch.Generator, start: int, stride: int = 1) -> Iterator[Batch]:
        """Endless; batch k depends on (generator's seed, k) alone."""
        if self.songs is None:
            raise SongError(
                "task codec: has no songs to train on; build it with Settings.task(seed)"
            )
        samples, slots = (
            self.settings.crop_frames * self.settings.network.hop,
            self.settings.network.slots,
        )
        index = start
        while True:
            chance = numbered(generator, index)
            wave_BW = torch.stack([self._crop(samples, chance) for _ in range(self.settings.batch)])
            fewer_B = torch.randint(1, max(2, slots), (len(wave_BW),), generator=chance)
            if self.settings.sung_slots:
                sung_B = torch.rand(len(wave_BW), generator=chance) < 0.5
                fewer_B = torch.where(sung_B, self.settings.sung_slots, fewer_B)
            drop_B = torch.rand(len(wave_BW), generator=chance) < self.settings.dropout
            yield Batch(wave_BW, torch.where(drop_B, fewer_B, slots), chance.initial_seed())
            index += stride

    def _crop(self, samples: int, chance: torch.Generator) -> Tensor:
        assert self.songs is not None
        if (
            not self.settings.disturbed
            or float(torch.rand((), generator=chance)) >= self.settings.disturbed
        ):
            return self.songs.crop(samples, chance)
        long_W = self.songs.crop(samples * 3 // 2, chance)
        if float(torch.rand((), generator=chance)) < 0.5:
            long_W = long_W + self.songs.crop(len(long_W), chance)
        return disturb(long_W, samples, chance)

    def loss(self, batch: Batch) -> dict[str, tuple[Tensor, float]]:
        """Terms as (sum over crops, number of crops): mel, stft, pitch, commitment, and source
        where there is one."""
        device = next(self.network.parameters()).device
        wave_BW, quantiser = batch.wave_BW.to(device), self.network.quantiser
        latent_BFD = self.network.latent(wave_BW)
        with torch.autocast(device.type, enabled=False):
            quantised_BFD, commitment_B = self._quantise(
                latent_BFD, batch.slots_B.to(device), batch.seed
            )
        hidden_BTD = self.network.hidden(quantised_BFD)
        with torch.autocast(device.type, enabled=False):
            hertz_BT, source_B = self._sung_pitch(hidden_BTD.float(), wave_BW)
        made_BW = self.network.voice(hidden_BTD, hertz_BT)
        with torch.autocast(device.type, enabled=False):
            mel_B, stft_B = self.distance(made_BW, wave_BW)
            pitch_B = self._pitch_distance(made_BW, wave_BW)
        self.seen += 1
        if not bool(quantiser.started) and int(self.seen) >= self.settings.unquantised:
            quantiser.start(batch.seed)
        count = float(len(wave_BW))
        return {
            "mel": (mel_B.sum(), count),
            "stft": (stft_B.sum(), count),
            "pitch": (pitch_B.sum(), count),
            "commitment": (commitment_B.sum(), count),
            **({} if source_B is None else {"source": (source_B.sum(), count)}),
        }

    def _pitch_distance(self, made_BW: Tensor, true_BW: Tensor) -> Tensor:
        """Mean |difference| of the log-magnitudes below 1.25 kHz that the encoder hears pitch by: B
        numbers.

        All windows count alike in mel and stft, and most bins lie high; this is where a tune is.
        """
        heard = self.network.features
        return (heard.pitch(made_BW) - heard.pitch(true_BW)).abs().mean((1, 2))

    def _sung_pitch(
        self, hidden_BTD: Tensor, wave_BW: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """For a network with a harmonic source: the pitch its pulses shall have, YIN's where it
        hears one and else the network's own (hertz_BT); and how far off the network's is (B
        numbers).
        """
        source = self.network.source
        if source is None:
            return None, None
        true_BT, voiced_BT = yin(wave_BW, self.settings.network.sample_rate, source.hop)
        logits_BTN = source.pitch(hidden_BTD)
        hertz_BT = torch.where(voiced_BT, true_BT, source.hertz(logits_BTN))
        return hertz_BT, off_pitch(logits_BTN, true_BT, voiced_BT)

    def _quantise(self, latent_BFD: Tensor, slots_B: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """The latent as the decoder sees it in training (gradients pass straight through), and the
        encoder's penalty.
        """
        quantiser = self.network.quantiser
        flat_ND = latent_BFD.detach().reshape(-1, latent_BFD.shape[-1])
        if not bool(quantiser.started):
            quantiser.remember(flat_ND)
            return latent_BFD, latent_BFD.new_zeros(len(latent_BFD))
        codes_NS, vectors_SND = quantiser.quantise(flat_ND)
        used_SB = torch.arange(codes_NS.shape[1], device=slots_B.device)[:, None] < slots_B
        vectors_SBFD = vectors_SND.reshape(-1, *latent_BFD.shape)
        kept_BFD = (vectors_SBFD * used_SB[:, :, None, None]).sum(0)
        quantiser.follow(flat_ND, codes_NS, vectors_SND, seed)
        commitment_B = (latent_BFD - kept_BFD).square().mean((1, 2))
        return latent_BFD + (kept_BFD - latent_BFD).detach(), commitment_B

    def counts(self, batch: Batch) -> dict[str, float]:
        return dict.fromkeys(self.loss_weights(), float(len(batch.wave_BW)))

    def loss_weights(self) -> dict[str, float]:
        weights = {
            "mel": 1.0,
            "stft": self.settings.stft_weight,
            "pitch": self.settings.pitch_weight,
            "commitment": self.settings.commitment_weight,
        }
        if self.network.source is not None:
            weights["source"] = self.settings.source_weight
        return weights

    def parameters(self) -> list[dict[str, Any]]:
        return parameter_groups(self.network.parameters())

    def state(self) -> dict[str, Tensor]:
        return {**self.network.state_dict(), "seen": self.seen}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.network.load_state_dict(
            {name: value for name, value in state.items() if name != "seen"}
        )
        self.seen = state["seen"].clone()

    def size(self, batch: Batch) -> int:
        """Seconds of sound would be a fraction; so codec frames."""
        return batch.wave_BW.numel() // self.settings.network.hop

    def to(self, device: torch.device | str) -> None:
        self.network.to(device)
        self.distance.to(device)

    def save(self, folder: str | Path) -> None:
        """The trained codec as config.json and weights.safetensors (half precision), ready for
        codecs/embedded.py.
        """
        save_codec(self.network, Path(folder), self.licences)

    def held_out_songs(self) -> list[Song]:
        return embedded_held_out(self.settings.songs, None)

    @torch.no_grad()
    def evaluate(self, songs: Sequence[Song], seconds: float = 120.0) -> Json:
        """Figures over the first `seconds` of held-out sound: mel L1 at 1 ... S slots, codes used
        and perplexity, and times faster than real time of encoding and decoding (all slots)."""
        self.network.eval()
        network, device = self.settings.network, next(self.network.parameters()).device
        codecs = [
            EmbeddedCodec(self.network, slots, "in training")
            for slots in range(1, network.slots + 1)
        ]
        for codec in codecs:
            codec.decode(codec.encode(torch.zeros(1, network.hop)))  # looks up how far it hears
        mel: list[list[float]] = [[] for _ in codecs]
        codes: list[Tensor] = []
        encoding = decoding = 0.0
        for wave_CW in self._held_out(songs, seconds):
            before = time.perf_counter()
            codes.append(codecs[-1].encode(wave_CW))
            encoding += time.perf_counter() - before
            for slots, codec in enumerate(codecs, 1):
                before = time.perf_counter()
                made_CW = codec.decode(codes[-1][:, :slots])
                decoding += time.perf_counter() - before if slots == len(codecs) else 0.0
                mel_l1 = float(self.distance(made_CW.to(device), wave_CW.to(device))[0])
                mel[slots - 1] += [mel_l1] * len(codes[-1])
        self.network.train()
        if not codes:
            raise SongError("task codec: no held-out song with audio to evaluate on; name some")
        codes_FS = torch.cat(codes)
        heard = len(codes_FS) * network.hop / network.sample_rate
        return {
            "seconds": heard,
            **_figures(mel, codes_FS, network.codes),
            "encodes_times_real_time": heard / encoding,
            "decodes_times_real_time": heard / decoding,
        }

    def _held_out(self, songs: Sequence[Song], seconds: float) -> Iterator[Tensor]:
        """wave_CW of each song with audio, in whole frames, until `seconds` of them were heard."""
        network = self.settings.network
        least, left = (round(wanted * network.sample_rate) for wanted in (SHORTEST, seconds))
        for song in songs:
            if song.audio is None or left < least:
                continue
            wave_CW = audio_files.read(song.audio, network.sample_rate)[:, :left]
            if wave_CW.shape[1] >= least:
                left -= wave_CW.shape[1]
                yield wave_CW[:, : wave_CW.shape[1] // network.hop * network.hop]


def _read(track: str, sample_rate: int) -> Tensor:
    """A recording as 16 bit numbers."""
    return (audio_files.read(track, sample_rate)[0].clamp(-1, 1) * 32767).round().to(torch.int16)


def disturb(wave_W: Tensor, samples: int, chance: torch.Generator) -> Tensor:
    """`samples` out of the middle of a wave half as long again: up to 3 semitones up or down, its
    spectrum tilted and bent by up to about 9 dB, 0 to 12 dB quieter."""
    ratio = 2 ** float(torch.empty(()).uniform_(-0.25, 0.25, generator=chance))
    spectrum_K = torch.fft.rfft(wave_W)
    bend_J = 3.0 * torch.randn(6, generator=chance)
    level_K = torch.nn.functional.interpolate(
        bend_J[None, None], len(spectrum_K), mode="linear", align_corners=True
    )[0, 0]
    level_K = level_K - 12.0 * torch.rand((), generator=chance)
    wanted = round(len(wave_W) * ratio) // 2 * 2
    size = wanted // 2 + 1
    spectrum_K = (spectrum_K * 10 ** (level_K / 20))[:size]
    spectrum_K = torch.nn.functional.pad(spectrum_K, (0, size - len(spectrum_K)))
    bent_W = torch.fft.irfft(spectrum_K, wanted) * ratio
    first = (wanted - samples) // 2
    piece_W = bent_W[first : first + samples]
    return piece_W / piece_W.abs().max().clamp_min(1.0)


def _figures(mel: list[list[float]], codes_NS: Tensor, size: int) -> Json:
    used, perplexity = [], []
    for slot in range(codes_NS.shape[1]):
        share_C = torch.bincount(codes_NS[:, slot], minlength=size).float() / len(codes_NS)
        used.append(int((share_C > 0).sum()))
        perplexity.append(float(torch.special.entr(share_C).sum().exp()))
    return {
        "mel_l1_by_slots": [sum(row) / len(row) for row in mel],
        "codes_used": used,
        "perplexity": perplexity,
    }
