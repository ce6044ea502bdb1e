"""What a Vocos head learns beside a DAC-style decoder of its size, from the same codes.

    python bench/head.py --seconds 360 [--codec FOLDER] [--kind embedded] [--songs MANIFEST]
                         [--rates 1e-3,3e-4]
    python bench/head.py --tiny       # a minute: shows that it runs, and says nothing about sound

Same codec, same crops, same losses. Both are trained by `distill.training.trainer` on what task
vocoder draws (slot dropout and all, no adversary): codes, as the sum of embeddings that start from
the codec's codebooks, to sound. The peer behind the embeddings is `dac.model.dac.Decoder` with even
strides, as wide as gives it the head's number of parameters (within 5 %, or this stops).

    equal time     each learns for `seconds`, its learning rate falling by the clock
    equal steps    the head again, for as many steps as the peer came to in that time

Every run is done at each of `rates` and the better one stands in the table (all are printed). The
figure is the mean distance of log-mel spectra (four resolutions) on songs held out of the manifest
(split, else every tenth), by one call. The head's gate for silence is off: it is by construction,
and not learnt.
"""

from __future__ import annotations

import argparse
import bisect
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distill.config import settings as strict
from distill.runtime import torchaudio_standin
from distill.songs import Song, read_manifest
from distill.sources.embedded import Settings as EmbeddedSongs
from distill.tasks._sound import compare
from distill.tasks.vocoder import Settings, VocoderTask
from distill.training.progress import show
from distill.training.trainer import TrainSettings, train
from distill.vocoders import Vocoder
from distill.vocoders._network import HeadNetwork, HeadSettings
from distill.vocoders.codec import CodecVocoder

torchaudio_standin.install()
warnings.filterwarnings("ignore", category=FutureWarning)  # dac's weight_norm

from dac.model.dac import Decoder


@dataclass(frozen=True)
class LoadedSongs:
    """A source of songs that were read already."""

    songs: tuple[Song, ...]

    def load(self) -> list[Song]:
        return list(self.songs)


class Peer(nn.Module):
    """The head's embeddings and DAC's decoder; [B, F, S] -> [B, C, W] like the head."""

    def __init__(self, head: HeadNetwork, width: int):
        super().__init__()
        self.hop, self.settings, self.format = head.hop, head.settings, head.format
        self.slots = nn.ModuleList(nn.Embedding(*slot.weight.shape) for slot in head.slots)
        for embedding, slot in zip(self.slots, head.slots, strict=True):
            embedding.weight.data.copy_(slot.weight)
        self.decoder = Decoder(
            head.latent_width, width, strides(head.hop), d_out=head.format.channels
        )

    def forward(self, codes_BFS: Tensor, slots_B: Tensor | None = None) -> Tensor:
        latent_BFD: Tensor | int = 0
        for s in range(codes_BFS.shape[2]):
            part_BFD = self.slots[s](codes_BFS[:, :, s])
            if slots_B is not None:
                part_BFD = part_BFD * (s < slots_B)[:, None, None]
            latent_BFD = latent_BFD + part_BFD
        return self.decoder(latent_BFD.mT).float()


class NetworkVocoder:
    """A network as a vocoder, song by song."""

    def __init__(self, network: HeadNetwork | Peer):
        self.network, self.fingerprint = network.eval(), "in training"
        self.hop, self.sample_rate = network.hop, network.settings.sample_rate

    @torch.inference_mode()
    def decode(self, codes_FS: Tensor) -> Tensor:
        device = next(self.network.parameters()).device
        return self.network(codes_FS[None].to(device))[0].float().cpu()

    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        yield self.decode(torch.cat(list(chunks)))


def strides(hop: int) -> list[int]:
    """Four even strides, the large ones first, as DAC has them: odd ones lose samples."""
    products = [
        (a, b, c, hop // (a * b * c))
        for a in range(2, hop + 1, 2)
        for b in range(2, a + 1, 2)
        if hop % (a * b) == 0
        for c in range(2, b + 1, 2)
        if hop % (a * b * c) == 0
    ]
    fours = [four for four in products if four[3] % 2 == 0 and four[3] <= four[2]]
    if not fours:
        sys.exit(f"bench: a hop of {hop} samples is no product of four even strides")
    return list(min(fours, key=lambda four: (max(four) / min(four), four)))


def size_of(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def peer_like(head: HeadNetwork) -> Peer:
    """As wide as comes nearest to the head's size; stops when that is not within 5 %."""
    widths = range(16, 8192, 16)  # four halvings stay whole

    def size(width: int) -> int:
        return size_of(_unfilled(head, width))

    wanted = size_of(head)
    over = bisect.bisect_left(widths, wanted, hi=len(widths) - 1, key=size)
    near = widths[max(0, over - 1) : over + 1]
    peer = Peer(head, min(near, key=lambda width: abs(size(width) / wanted - 1)))
    if abs(size_of(peer) / wanted - 1) > 0.05:
        sys.exit(
            f"bench: {size_of(peer)} parameters are not within 5 % of {wanted}; change --width"
        )
    return peer


def _unfilled(head: HeadNetwork, width: int) -> nn.Module:
    """The peer's shapes without memory or numbers."""
    with torch.device("meta"):
        decoder = Decoder(head.latent_width, width, strides(head.hop), d_out=head.format.channels)
        return nn.ModuleList([decoder, *(nn.Embedding(*slot.weight.shape) for slot in head.slots)])


def learn(task: VocoderTask, settings: TrainSettings, name: str) -> tuple[int, float]:
    """(steps, seconds) of one run, in a folder that is gone afterwards."""
    steps, begun = 0, time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="distill-bench-") as folder:
        for step in show(train(task, settings, folder, seed=1), settings, name):
            steps = step.index
    return steps, time.perf_counter() - begun


def songs_of(options: argparse.Namespace) -> tuple[Song, ...]:
    """Songs with split train or held-out."""
    if options.songs is None:
        held_out = [replace(song, split="held-out") for song in EmbeddedSongs("held-out").load()]
        songs = [*EmbeddedSongs().load(), *held_out]
    else:
        songs = [song for song in read_manifest(Path(options.songs)) if song.audio is not None]
    if all(song.split == "train" for song in songs):
        songs = [
            replace(song, split="held-out" if i % 10 == 9 else "train")
            for i, song in enumerate(songs)
        ]
    return tuple(songs)


def settings_of(options: argparse.Namespace) -> Settings:
    codec_settings = strict.settings_class("codecs", options.kind)
    head = HeadSettings(
        hop=options.hop,
        window=4 * options.hop,
        width=options.width,
        inner=3 * options.width,
        blocks=options.blocks,
    )
    return Settings(
        songs=LoadedSongs(songs_of(options)),
        codec=codec_settings(path=options.codec, slots=options.slots or None),
        network=head,
        batch=options.batch,
        crop_frames=options.crop_frames,
        hours=options.hours,
    )


class Run(NamedTuple):
    """A network, learnt."""

    title: str
    rate: float
    network: HeadNetwork | Peer
    steps: int
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.title}, rate {self.rate:g}"


def run(options: argparse.Namespace) -> None:
    settings = settings_of(options)
    task = settings.task(seed=1)  # reads and codes the songs, once
    first = {name: value.clone() for name, value in task.state().items()}
    head = task.network
    head.silence_S = None

    def fresh_head() -> HeadNetwork:
        torch.manual_seed(1)
        network = type(head)(settings.network, head.format, head.latent_width)
        network.load_state_dict(first, strict=False)
        return network

    def fresh_peer() -> Peer:
        torch.manual_seed(1)
        return peer_like(head)

    rates, seconds = options.rates, options.seconds
    equal_time = TrainSettings(seconds=seconds, betas=(0.8, 0.95))
    peers = contest(task, "DAC decoder", fresh_peer, equal_time, rates)
    runs = peers + contest(task, "head, equal time", fresh_head, equal_time, rates)
    equal_steps = replace(equal_time, seconds=None, steps=max(peer.steps for peer in peers))
    runs += contest(task, "head, equal steps", fresh_head, equal_steps, rates)
    vocoders: dict[str, Vocoder] = {"codec": CodecVocoder(task.codec)}
    vocoders |= {trained.name: NetworkVocoder(trained.network) for trained in runs}
    figures = compare(vocoders, task.codec, task.held_out, options.held_out)
    held_out = f"{figures['seconds']:.0f} s held out"
    print(f"\n## {held_out}; {seconds:g} s of training each, {torch.__version__}\n")
    print_table(runs, {name: figures[name]["mel_l1"] for name in vocoders})


def contest(
    task: VocoderTask,
    title: str,
    fresh: Callable[[], HeadNetwork | Peer],
    settings: TrainSettings,
    rates: list[float],
) -> list[Run]:
    """A fresh network trained by the task at each learning rate."""
    runs = []
    for rate in rates:
        task.network = network = fresh()
        at_rate = replace(settings, learning_rate=rate)
        steps, seconds = learn(task, at_rate, f"{title}, rate {rate:g}")
        task.to("cpu")
        runs.append(Run(title, rate, network, steps, seconds))
    return runs


def print_table(runs: list[Run], mel_l1: dict[str, float]) -> None:
    """Of every title the best rate first, the others in brackets."""
    print("| decoder | parameters | steps | training, s | rate | mel distance |")
    print("|---|---|---|---|---|---|")
    print(f"| the codec's own | - | - | - | - | {mel_l1['codec']:.4f} |")
    for title in dict.fromkeys(trained.title for trained in runs):
        of_title = [trained for trained in runs if trained.title == title]
        of_title.sort(key=lambda trained: mel_l1[trained.name])
        for rank, trained in enumerate(of_title):
            shown, size = title if rank == 0 else f"({title})", size_of(trained.network)
            print(
                f"| {shown} | {size:,} | {trained.steps} | {trained.seconds:.0f} | "
                f"{trained.rate:g} | {mel_l1[trained.name]:.4f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codec", default="embedded/codec", help="the codec's folder")
    parser.add_argument("--kind", default="embedded", help="its kind")
    parser.add_argument("--slots", type=int, default=0, help="how many of its slots (0: all)")
    parser.add_argument("--songs", help="manifest.jsonl of recordings (the embedded songs)")
    parser.add_argument("--hours", type=float, default=3.0, help="of song in memory")
    parser.add_argument("--seconds", type=float, default=360.0, help="of training a run")
    parser.add_argument(
        "--rates", type=lambda text: [float(r) for r in text.split(",")], default=[1e-3]
    )
    parser.add_argument("--held-out", type=float, default=120.0, help="seconds to measure on")
    parser.add_argument("--hop", type=int, default=240, help="of the head; divides a codec's frame")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop-frames", type=int, default=16)
    parser.add_argument("--threads", type=int, help="of torch (all there are)")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.tiny:
        options.seconds, options.rates, options.held_out, options.hours = 3.0, [1e-3], 4.0, 0.01
        options.width, options.blocks, options.batch, options.crop_frames = 64, 2, 2, 8
    run(options)


if __name__ == "__main__":
    main()
