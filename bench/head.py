"""Does the head learn as well as a DAC-style decoder of its size? Same codec, same codes, same
crops, same losses.

    python bench/head.py --seconds 360 [--codec FOLDER] [--kind embedded] [--songs MANIFEST] [--rates 1e-3,3e-4]
    python bench/head.py --tiny          # a minute: shows that it runs, and says nothing about sound

Both are trained by `distill.training.trainer` on what task vocoder draws (slot dropout and all, no
adversary): codes, as the sum of embeddings that start from the codec's codebooks, to sound. The
peer behind the embeddings is `dac.model.dac.Decoder` with even strides, as wide as gives it the
head's number of parameters (within 5 %, or this stops).

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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from distill.vocoders._network import HeadSettings
from distill.vocoders.codec import CodecVocoder

torchaudio_standin.install()
warnings.filterwarnings("ignore", category=FutureWarning)  # dac's weight_norm

from dac.model.dac import Decoder


@dataclass(frozen=True)
class Songs:
    """A source of songs that were read already."""

    songs: tuple[Song, ...]

    def load(self) -> list[Song]:
        return list(self.songs)


class Peer(nn.Module):
    """The head's embeddings and DAC's decoder; [B, F, S] -> [B, C, W] like the head."""

    def __init__(self, like: Any, width: int):
        super().__init__()
        self.hop, self.settings, self.format = like.hop, like.settings, like.format
        self.slots = nn.ModuleList(nn.Embedding(*slot.weight.shape) for slot in like.slots)
        for mine, slot in zip(self.slots, like.slots, strict=True):
            mine.weight.data.copy_(slot.weight)
        self.decoder = Decoder(
            like.latent_width, width, strides(like.hop), d_out=like.format.channels
        )

    def forward(self, codes_BFS: Tensor, slots_B: Tensor | None = None) -> Tensor:
        latent_BFD: Any = 0
        for s in range(codes_BFS.shape[2]):
            part_BFD = self.slots[s](codes_BFS[:, :, s])
            latent_BFD = latent_BFD + (
                part_BFD if slots_B is None else part_BFD * (s < slots_B)[:, None, None]
            )
        return self.decoder(latent_BFD.mT).float()


class Whole:
    """A network as a vocoder, song by song."""

    def __init__(self, network: Any):
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
    even = [n for n in range(2, hop + 1, 2)]
    found = [
        (a, b, c, hop // (a * b * c))
        for a in even
        for b in even
        if b <= a and hop % (a * b) == 0
        for c in even
        if c <= b
        and hop % (a * b * c) == 0
        and hop // (a * b * c) % 2 == 0
        and hop // (a * b * c) <= c
    ]
    if not found:
        sys.exit(f"bench: a hop of {hop} samples is no product of four even strides")
    return list(min(found, key=lambda four: (max(four) / min(four), four)))


def size_of(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def peer_like(head: Any) -> Peer:
    """As wide as comes nearest to the head's size; stops when that is not within 5 %."""
    widths = range(16, 8192, 16)  # four halvings stay whole

    def size(width: int) -> int:
        return size_of(_unfilled(head, width))

    over = bisect.bisect_left(widths, size_of(head), hi=len(widths) - 1, key=size)
    near = widths[max(0, over - 1) : over + 1]
    peer = Peer(head, min(near, key=lambda width: abs(size(width) / size_of(head) - 1)))
    if abs(size_of(peer) / size_of(head) - 1) > 0.05:
        sys.exit(
            f"bench: {size_of(peer)} parameters are not within 5 % of {size_of(head)}; change "
            "--width"
        )
    return peer


def _unfilled(head: Any, width: int) -> nn.Module:
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


def songs_of(said: argparse.Namespace) -> tuple[Song, ...]:
    """Songs with split train or held-out."""
    if said.songs is None:
        given = [
            *EmbeddedSongs().load(),
            *(replace(s, split="held-out") for s in EmbeddedSongs("held-out").load()),
        ]
    else:
        given = [song for song in read_manifest(Path(said.songs)) if song.audio is not None]
    if all(song.split == "train" for song in given):
        given = [
            replace(song, split="held-out" if i % 10 == 9 else "train")
            for i, song in enumerate(given)
        ]
    return tuple(given)


def settings_of(said: argparse.Namespace) -> Settings:
    codec = strict.settings_class("codecs", said.kind)(path=said.codec, slots=said.slots or None)
    head = HeadSettings(
        hop=said.hop,
        window=4 * said.hop,
        width=said.width,
        inner=3 * said.width,
        blocks=said.blocks,
    )
    return Settings(
        songs=Songs(songs_of(said)),
        codec=codec,
        network=head,
        batch=said.batch,
        crop_frames=said.crop_frames,
        hours=said.hours,
    )


def run(said: argparse.Namespace) -> None:
    settings = settings_of(said)
    task = settings.task(seed=1)  # reads and codes the songs, once
    begin = {name: value.clone() for name, value in task.state().items()}
    vocoders: dict[str, Any] = {"codec": CodecVocoder(task.codec)}
    rows: dict[str, tuple[str, int, int, float]] = {}
    head = task.network
    head.silence_S = None

    def contest(title: str, make: Any, **budget: Any) -> None:
        for rate in said.rates:
            task.network = network = make()
            name = f"{title}, rate {rate:g}"
            steps, seconds = learn(
                task, TrainSettings(learning_rate=rate, betas=(0.8, 0.95), **budget), name
            )
            task.to("cpu")
            rows[name], vocoders[name] = (title, size_of(network), steps, seconds), Whole(network)

    def fresh_head() -> Any:
        torch.manual_seed(1)
        made = type(head)(settings.network, head.format, head.latent_width)
        made.load_state_dict(begin, strict=False)
        return made

    def fresh_peer() -> Any:
        torch.manual_seed(1)
        return peer_like(head)

    contest("DAC decoder", fresh_peer, seconds=said.seconds)
    contest("head, equal time", fresh_head, seconds=said.seconds)
    steps = max(rows[f"DAC decoder, rate {rate:g}"][2] for rate in said.rates)
    contest("head, equal steps", fresh_head, steps=steps)
    figures = compare(vocoders, task.codec, task.held_out, said.held_out)
    print(
        f"\n## {figures['seconds']:.0f} s held out; {said.seconds:g} s of training each, "
        f"{torch.__version__}\n"
    )
    print(
        "| decoder | parameters | steps | training, s | rate | mel distance "
        "|\n|---|---|---|---|---|---|"
    )
    print(f"| the codec's own | - | - | - | - | {figures['codec']['mel_l1']:.4f} |")
    for title in dict.fromkeys(row[0] for row in rows.values()):
        names = sorted(
            (n for n, row in rows.items() if row[0] == title), key=lambda n: figures[n]["mel_l1"]
        )
        for place, name in enumerate(names):
            _, size, steps, seconds = rows[name]
            shown = title if place == 0 else f"({title})"
            rate = name.rpartition(" ")[2]
            print(
                f"| {shown} | {size:,} | {steps} | {seconds:.0f} | {rate} | "
                f"{figures[name]['mel_l1']:.4f} |"
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
    parser.add_argument(
        "--held-out", type=float, default=120.0, help="seconds of song to measure on"
    )
    parser.add_argument(
        "--hop", type=int, default=240, help="of the head; divides the codec's frame"
    )
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop-frames", type=int, default=16)
    parser.add_argument("--threads", type=int, help="of torch (all there are)")
    parser.add_argument("--tiny", action="store_true")
    said = parser.parse_args()
    if said.threads:
        torch.set_num_threads(said.threads)
    if said.tiny:
        said.seconds, said.rates, said.held_out, said.hours = 3.0, [1e-3], 4.0, 0.01
        said.width, said.blocks, said.batch, said.crop_frames = 64, 2, 2, 8
    run(said)


if __name__ == "__main__":
    main()
