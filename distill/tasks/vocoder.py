"""Train a vocoder head for a codec: songs become codes once, and the head learns to sing the songs
back from them.

Multi-resolution mel and spectrogram distances (_sound.py) teach most of it; with `adversary`, the
discriminators of the Vocos paper (vocoders/_adversary.py) learn beside it, in the same step and by
the same optimiser. A share of the crops uses only the first few slots, so that 1 ... S slots all
sing, and a share is silence, so that silence stays silent. Everything that chance decides for
micro-batch k is drawn from (seed, k), and everything else lives in `state()`; so a resumed run
repeats the interrupted one exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from distill import coded_songs
from distill.codecs import Codec, CodecSettings
from distill.config import settings as strict
from distill.config.ranges import Checked, above, at_least, share
from distill.config.recipe import Recipe
from distill.config.settings import part
from distill.errors import SettingsError, SongError
from distill.folders import Json
from distill.runtime.devices import best_device
from distill.songs import Song
from distill.sources import Source
from distill.tasks import Task, parameter_groups
from distill.tasks._held_out import divided, embedded_held_out, has_split
from distill.tasks._sound import (
    SpectralDistance,
    compare,
    distances,
    end_to_end,
    moment,
    silence,
    sound_of,
    sounds,
    whole,
)
from distill.training.trainer import TrainSettings, numbered
from distill.vocoders import Vocoder
from distill.vocoders._adversary import Adversary
from distill.vocoders._network import HeadNetwork, HeadSettings
from distill.vocoders.codec import CodecVocoder
from distill.vocoders.head import CodecCard, HeadVocoder, save_head

HEARD = 8.0  # seconds to listen to while it learns


@dataclass(frozen=True)
class AdversarySettings(Checked):
    """From micro-batch `start` on, the discriminators play. Weights beside mel's 1.0; Vocos: 1 / 45
    each."""

    start: int = at_least(0, default=0)
    weight: float = 1 / 45
    feature_weight: float = 1 / 45
    window_share: float = 0.1
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    windows: tuple[int, ...] = (2048, 1024, 512)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.periods or self.windows):
            raise SettingsError("needs periods or windows; correct the recipe")


@dataclass(frozen=True)
class Settings(Checked):
    """The recipe of task vocoder. `hours` caps the sound kept in memory (115 MB an hour at 16 kHz,
    each channel).

    `track`: learn from the whole song or from one stem, coded alone. `dropout`: share of crops with
    fewer slots; `silence`: share that is silent.
    """

    songs: Source = part("sources")
    codec: CodecSettings = part("codecs")
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(seconds=600, learning_rate=1e-3, betas=(0.8, 0.95))
    )
    network: HeadSettings = field(default_factory=HeadSettings)
    track: Literal["mix", "vocals", "accompaniment"] = "mix"
    batch: int = at_least(1, default=8)
    crop_frames: int = at_least(4, default=32)
    hours: float = above(0, default=3.0)
    dropout: float = share(default=0.4)
    silence: float = share(default=0.05, one=False)
    stft_weight: float = 0.5
    adversary: AdversarySettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.track != "mix" and strict.kind_of(self.codec) == "tracks":
            raise SettingsError(
                f"track is {self.track} and the codec hears tracks of its own choice; name a "
                "codec of one stream"
            )

    def run(self, recipe: Recipe, folder: Path) -> str:
        """Trains the head and compares it with the codec's decoder, in a folder."""
        from distill.tasks import _run  # the trainer, which checking a recipe does not need

        return _run.run(self.task(recipe.seed), recipe, folder)

    def task(self, seed: int) -> VocoderTask:
        """The task, its songs read and coded. Raises SongError when none is left to train on."""
        codec = self.codec.load().to(best_device())
        songs = [_one_track(song, self.track) for song in self.songs.load()]
        return VocoderTask(self, codec, songs, seed)


@dataclass(frozen=True)
class Batch:
    """Crops of sound and their codes; how many slots each may use; whether the adversary plays."""

    codes_BFS: Tensor
    wave_BCW: Tensor
    slots_B: Tensor
    played: bool


class CodedSongs:
    """All songs beside their codes, in whole frames; a crop never crosses from one song into the
    next."""

    def __init__(
        self, songs: Sequence[Song], codec: Codec, rate: int, hop: int, hours: float, seed: int
    ):
        codes, waves, room = [], [], hours * 3600 * codec.format.frame_rate
        order = torch.randperm(len(songs), generator=torch.Generator().manual_seed(seed)).tolist()
        for song in (songs[index] for index in order):
            if room <= 0 or not sounds(song, codec.format):
                continue
            codes_FS = coded_songs.codes_of(song, codec)
            wave_CW = whole(sound_of(song, codec.format, rate), len(codes_FS) * hop)
            codes.append(codes_FS.to(torch.int32))
            waves.append((wave_CW.clamp(-1, 1) * 32767).round().to(torch.int16))
            room -= len(codes_FS)
        if not codes:
            raise SongError(
                "task vocoder: no training song has audio; name a source with recordings"
            )
        self.codes_FS, self.hop = torch.cat(codes), hop
        self.wave_CW, ends_N = end_to_end(waves)
        self.ends_N = ends_N // hop

    def crop(self, silence_FS: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(codes_FS, wave_CW) of a random moment as long as `silence_FS`, which follows a song that
        is shorter."""
        frames = len(silence_FS)
        start, stop = moment(self.ends_N, frames, generator)
        codes_FS = torch.cat([self.codes_FS[start:stop].long(), silence_FS[stop - start :]])
        wave_CW = self.wave_CW[:, start * self.hop : stop * self.hop].float() / 32767
        return codes_FS, whole(wave_CW, frames * self.hop)


class VocoderTask(Task):
    """A head, learning to sing songs from their codes; with it, its adversary."""

    def __init__(self, settings: Settings, codec: Codec, songs: Sequence[Song], seed: int):
        self.settings, self.codec = settings, codec
        # a split has held-out songs elsewhere, which lack tracks: see `embedded_held_out`
        apart = has_split(settings.songs) and not codec.format.tracks
        learnt, self.held_out = divided(songs, apart)
        self.licences = _licences(settings, learnt)
        books, adversary = codec.codebooks(), settings.adversary
        self.silence_FS = silence(codec, settings.crop_frames)
        still_S = (
            tuple(self.silence_FS[0].tolist()) if len(self.silence_FS.unique(dim=0)) == 1 else None
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = HeadNetwork(settings.network, codec.format, books[0].shape[1], still_S)
            self.network.begin(books)
            self.adversary = None
            if adversary is not None:
                shape = adversary.periods, adversary.windows, adversary.window_share
                self.adversary = Adversary(*shape)
        rate = self.network.settings.sample_rate
        assert rate is not None
        self.distance = SpectralDistance(rate)
        self.songs = CodedSongs(learnt, codec, rate, self.network.hop, settings.hours, seed)

    def batches(self, generator: torch.Generator, start: int, stride: int = 1) -> Iterator[Batch]:
        """Endless; batch k depends on (generator's seed, k) alone."""
        size, slots = self.settings.batch, self.codec.format.slots
        adversary = self.settings.adversary
        streams = self.codec.format.streams  # tracks coded apart lose their finer slots together
        index = start
        while True:
            chance = numbered(generator, index)
            crops = [self.songs.crop(self.silence_FS, chance) for _ in range(size)]
            codes_BFS, wave_BCW = (torch.stack(both) for both in zip(*crops, strict=True))
            silent_B = torch.rand(size, generator=chance) < self.settings.silence
            codes_BFS = torch.where(silent_B[:, None, None], self.silence_FS, codes_BFS)
            wave_BCW = wave_BCW * ~silent_B[:, None, None]
            fewer_B = streams * torch.randint(
                1, max(2, slots // streams), (size,), generator=chance
            )
            drop_B = torch.rand(size, generator=chance) < self.settings.dropout
            slots_B = torch.where(drop_B, fewer_B, slots)
            yield Batch(
                codes_BFS, wave_BCW, slots_B, adversary is not None and index >= adversary.start
            )
            index += stride

    def loss(self, batch: Batch) -> dict[str, tuple[Tensor, float]]:
        """Terms as (sum over crops, number of crops): mel, stft; where the adversary plays, also
        hinge and features (how the head fares with it) and judged (how it fares itself)."""
        self.network.train()
        device, crops = next(self.network.parameters()).device, float(len(batch.wave_BCW))
        made_BCW = self.network(batch.codes_BFS.to(device), batch.slots_B.to(device))
        made_BW, true_BW = made_BCW.flatten(0, 1), batch.wave_BCW.to(device).flatten(0, 1)
        with torch.autocast(device.type, enabled=False):
            mel_B, stft_B = self.distance(made_BW, true_BW)
        means = {"mel": mel_B.mean(), "stft": stft_B.mean()}
        if batch.played and self.adversary is not None:
            means["judged"] = self.adversary.judged(made_BW, true_BW)
            means["hinge"], means["features"] = self.adversary.fooled(made_BW, true_BW)
        return {name: (mean * crops, crops) for name, mean in means.items()}

    def counts(self, batch: Batch) -> dict[str, float]:
        names = self.loss_weights() if batch.played else ("mel", "stft")
        return dict.fromkeys(names, float(len(batch.wave_BCW)))

    def loss_weights(self) -> dict[str, float]:
        weights = {"mel": 1.0, "stft": self.settings.stft_weight}
        if (adversary := self.settings.adversary) is not None:
            # AdamW does not mind how large judged's gradient is; clipping both together does
            weights |= {"judged": adversary.weight, "hinge": adversary.weight}
            weights |= {"features": adversary.feature_weight}
        return weights

    def parameters(self) -> list[dict[str, Any]]:
        groups = parameter_groups(self.network.parameters())
        if self.adversary is not None:
            groups.append({"params": [*self.adversary.parameters()]})
        return groups

    def state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = dict(self.network.named_parameters())
        if self.adversary is not None:
            named = self.adversary.named_parameters()
            state |= {f"adversary.{name}": value for name, value in named}
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self.state().items():
                value.copy_(state[name])

    def size(self, batch: Batch) -> int:
        """Seconds of sound would be a fraction; so codec frames."""
        return batch.codes_BFS.shape[0] * batch.codes_BFS.shape[1]

    def to(self, device: torch.device | str) -> None:
        self.network.to(device)
        self.distance.to(device)
        if self.adversary is not None:
            self.adversary.to(device)

    # --- what came of it --------------------------------------------------------------------------
    def vocoder(self, slots: int | None = None) -> HeadVocoder:
        """The head as it is now, for all slots or the first few; it goes on learning."""
        sizes = self.codec.format.slot_sizes[:slots]
        return HeadVocoder(
            self.network, replace(self.codec.format, slot_sizes=sizes), "in training"
        )

    def sounds(self) -> dict[str, Tensor]:
        """wave_CW to listen to: the beginning of a training song, as it is and as the head sings it
        now."""
        frames = min(round(HEARD * self.codec.format.frame_rate), int(self.songs.ends_N[0]))
        wave_CW = self.songs.wave_CW[:, : frames * self.songs.hop].float() / 32767
        return {"song": wave_CW, "head": self.vocoder().decode(self.songs.codes_FS[:frames].long())}

    @property
    def sample_rate(self) -> int:
        return self.vocoder().sample_rate

    def save(self, folder: str | Path) -> None:
        """The trained head, ready for vocoders/head.py."""
        card = CodecCard(
            strict.kind_of(self.settings.codec), self.codec.fingerprint, self.codec.format
        )
        save_head(self.network, Path(folder), card, self.licences)

    def held_out_songs(self) -> list[Song]:
        if self.held_out:
            return self.held_out
        songs = embedded_held_out(self.settings.songs, self.codec.format)
        return [_one_track(song, self.settings.track) for song in songs]

    def evaluate(self, songs: Sequence[Song], seconds: float = 120.0) -> Json:
        """Head and codec on held-out songs (the source's own, else `songs`): see `compare`; and mel
        by slots. Where there are none, "why" nothing was measured.
        """
        songs = self.held_out or [_one_track(song, self.settings.track) for song in songs]
        if not any(sounds(song, self.codec.format) for song in songs):
            return {"why": "no recording is held out to compare head and codec on"}
        vocoders: dict[str, Vocoder] = {"codec": CodecVocoder(self.codec), "head": self.vocoder()}
        figures = compare(vocoders, self.codec, songs, seconds)
        slots = range(1, self.codec.format.slots)
        heads = {slot: {"head": self.vocoder(slot)} for slot in slots}
        fewer = [
            distances(head, self.codec, songs, seconds, slot)["head"]["mel_l1"]
            for slot, head in heads.items()
        ]
        return {**figures, "mel_l1_by_slots": [*fewer, figures["head"]["mel_l1"]]}


def _one_track(song: Song, track: str) -> Song:
    return song if track == "mix" else replace(song, audio=getattr(song, track))


def _licences(settings: Settings, songs: Sequence[Song]) -> dict[str, str]:
    of_songs = {f"song: {song.source or song.id}": song.licence for song in songs}
    return {"codec": settings.codec.terms, **of_songs}
