"""The embedded codec's network: singing in 25 frames per second.

    wave -> log-mel and low log-magnitude bins (50 Hz) -> ConvNeXt -> 32 numbers per frame (25 Hz)
         -> residual vector quantisation, S slots x C codes
         -> ConvNeXt (25 Hz) -> ConvNeXt (100 Hz) [+ harmonic source, _source.py] -> inverse STFT
         -> wave

The blocks and the inverse-STFT head are those of Vocos (Siuzdak 2023, arXiv 2306.00814): no
upsampling to the sample rate inside the network, so that one CPU thread decodes far faster than
real time. The narrow low bins are there because 80 mel bands cannot tell neighbouring semitones of
a low voice apart.

Quantiser: moving-average codebooks (van den Oord 2017, arXiv 1711.00937, appendix A.1; residual:
arXiv 2107.03312) rather than the factorised, cosine ones of descript-audio-codec: with a k-means
start and restarts of dead codes they need no codebook gradient, and fill every codebook in some
thousand small steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.codecs._source import HarmonicSource, cycles, stft
from distill.config.ranges import Checked, at_least
from distill.errors import SettingsError
from distill.runtime.torchaudio_standin import install

install()

from torchaudio.functional import melscale_fbanks
from vocos.heads import ISTFTHead
from vocos.modules import ConvNeXtBlock

LOG_FLOOR = 1e-5
STATES = 4  # of the decoder in a frame
RING = 8192  # latents, at least, that are kept for the k-means start: 32 for each code
DEAD = 0.1  # of its share of the frames: a code that codes less is restarted
LOUDEST = 1e2  # magnitude of a bin
SOFTER = 2.0  # nats by which a head with a source starts below the pulses
LOW_HZ = 1250  # below it the longer window is heard, too


@dataclass(frozen=True)
class NetworkSettings(Checked):
    """Sizes of the network. `hop` samples a frame; the encoder works at hop / 2, decoder hop / 4.

    It hears `mel_bands` in windows of `mel_window` samples and, finer, what lies below 1.25 kHz in
    windows of `pitch_window`. It sings in windows of `synthesis_window` (None: a hop). Without a
    `source` these must be long for a low voice: a Hann window of 50 ms tells the harmonics of 82 Hz
    apart, one of 40 ms does not. With one, 30 ms keep the consonants that longer windows blur.
    """

    sample_rate: int = at_least(1, default=16000)
    hop: int = at_least(1, default=640)
    slots: int = at_least(1, default=4)
    codes: int = at_least(1, default=512)
    latent_width: int = at_least(1, default=32)
    mel_bands: int = at_least(1, default=80)
    mel_window: int = at_least(1, default=1024)
    pitch_window: int = 2048
    encoder_widths: tuple[int, ...] = (192, 288)
    decoder_width: int = at_least(1, default=256)
    decoder_blocks: int = 6
    synthesis_window: int | None = None
    source: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hop % (2 * STATES):
            raise SettingsError(f"hop is {self.hop}; it must be a multiple of {2 * STATES}")
        if len(self.encoder_widths) != 2:
            raise SettingsError(f"encoder_widths are {self.encoder_widths}; give two")
        window = self.synthesis_window or self.hop
        if window % 2 or window < self.hop // 2:
            raise SettingsError(f"synthesis_window is {window}; give an even one >= half the hop")
        if low_bins(self) < 1:
            fault = f"pitch_window is {self.pitch_window}; it has no bins below 1.25 kHz"
            raise SettingsError(f"{fault}, so widen it")


class ResidualQuantiser(nn.Module):
    """S codebooks of C codes in one space of width D; each codes what the ones before it left over.

    All its state is in buffers (so a checkpoint of the module resumes exactly) and all its chance
    comes from the seed it is given. Before `start` it keeps a ring of recent latents for k-means.
    """

    codebooks_SCD: Tensor
    counts_SC: Tensor
    sums_SCD: Tensor
    ring_ND: Tensor
    ring_filled: Tensor
    started: Tensor

    def __init__(self, slots: int, codes: int, width: int, ring: int | None = None):
        super().__init__()
        ring = ring or max(RING, 32 * codes)
        self.register_buffer("codebooks_SCD", torch.zeros(slots, codes, width))
        self.register_buffer("counts_SC", torch.ones(slots, codes))
        self.register_buffer("sums_SCD", torch.zeros(slots, codes, width))
        self.register_buffer("ring_ND", torch.zeros(ring, width))
        self.register_buffer("ring_filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def quantise(self, latent_ND: Tensor, slots: int | None = None) -> tuple[Tensor, Tensor]:
        """Nearest codes, slot after slot: codes_NS, and each slot's vectors, quantised_SND."""
        codes, vectors, residual_ND = [], [], latent_ND
        for codebook_CD in self.codebooks_SCD[:slots]:
            index_N = _nearest(residual_ND, codebook_CD)
            vectors.append(codebook_CD[index_N])
            codes.append(index_N)
            residual_ND = residual_ND - vectors[-1]
        return torch.stack(codes, -1), torch.stack(vectors)

    def look_up(self, codes_NS: Tensor) -> Tensor:
        """Sum of the codes' vectors: latent_ND."""
        slots = range(codes_NS.shape[1])
        return torch.stack([self.codebooks_SCD[s][codes_NS[:, s]] for s in slots]).sum(0)

    @torch.no_grad()
    def remember(self, latent_ND: Tensor) -> None:
        """Keep latents for the k-means start."""
        size = len(self.ring_ND)
        index_N = (self.ring_filled + torch.arange(len(latent_ND), device=latent_ND.device)) % size
        self.ring_ND[index_N[-size:]] = latent_ND[-size:]
        self.ring_filled += len(latent_ND)

    @torch.no_grad()
    def start(self, seed: int, rounds: int = 10) -> None:
        """Fill every codebook by k-means over what the slots before leave of remembered latents."""
        generator = torch.Generator().manual_seed(seed)
        residual_ND = self.ring_ND[: min(int(self.ring_filled), len(self.ring_ND))].clone()
        codes = self.codebooks_SCD.shape[1]
        for codebook_CD in self.codebooks_SCD:
            pick_C = torch.randperm(len(residual_ND), generator=generator)[:codes]
            centre_CD = residual_ND[pick_C.to(residual_ND.device)]
            # fewer latents than codes: the rest become copies and are restarted later
            if len(centre_CD) < codes:
                centre_CD = centre_CD.repeat(-(-codes // len(centre_CD)), 1)[:codes]
            for _ in range(rounds):
                count_C, sum_CD = _gather(residual_ND, _nearest(residual_ND, centre_CD), codes)
                mean_CD = sum_CD / count_C.clamp_min(1)[:, None]
                centre_CD = torch.where(count_C[:, None] > 0, mean_CD, centre_CD)
            codebook_CD.copy_(centre_CD)
            residual_ND = residual_ND - centre_CD[_nearest(residual_ND, centre_CD)]
        self.counts_SC.fill_(1.0)
        self.sums_SCD.copy_(self.codebooks_SCD)
        self.started.fill_(True)

    @torch.no_grad()
    def follow(
        self,
        latent_ND: Tensor,
        codes_NS: Tensor,
        quantised_SND: Tensor,
        seed: int,
        decay: float = 0.99,
    ) -> None:
        """Move the codes towards the mean of what they coded; restart dead ones on any frames."""
        generator = torch.Generator().manual_seed(seed)
        residual_ND = latent_ND
        slots, codes, _ = self.codebooks_SCD.shape
        usual = len(latent_ND) / codes  # frames per code and batch if all were used alike
        for slot in range(slots):
            counts_C, sums_CD = self.counts_SC[slot], self.sums_SCD[slot]  # views
            count_C, sum_CD = _gather(residual_ND, codes_NS[:, slot], codes)
            counts_C.lerp_(count_C, 1 - decay)
            sums_CD.lerp_(sum_CD, 1 - decay)
            dead_C = counts_C < DEAD * usual
            pick_C = torch.randint(len(residual_ND), (codes,), generator=generator)
            restart_CD = residual_ND[pick_C.to(residual_ND.device)] * usual
            sums_CD.copy_(torch.where(dead_C[:, None], restart_CD, sums_CD))
            counts_C.copy_(torch.where(dead_C, torch.full_like(count_C, usual), counts_C))
            self.codebooks_SCD[slot] = sums_CD / counts_C[:, None]
            residual_ND = residual_ND - quantised_SND[slot]


class CodecNetwork(nn.Module):
    """Encoder, quantiser, decoder. Waves are one channel each, wave_BW, W a multiple of the hop."""

    def __init__(self, settings: NetworkSettings):
        super().__init__()
        self.settings = settings
        first, second = settings.encoder_widths
        width, latent = settings.decoder_width, settings.latent_width
        self.features = Features(settings)
        self.encoder = nn.Sequential(
            nn.Conv1d(self.features.width, first, 3, padding=1),
            ChannelNorm(first),
            *_blocks(first, 3),
            nn.Conv1d(first, second, 4, stride=2, padding=1),
            *_blocks(second, 2),
            ChannelNorm(second),
            nn.Conv1d(second, latent, 1),
        )
        self.quantiser = ResidualQuantiser(settings.slots, settings.codes, latent)
        self.decoder = nn.Sequential(
            nn.Conv1d(latent, width, 7, padding=3),
            ChannelNorm(width),
            *_blocks(width, 2),
            nn.ConvTranspose1d(width, width, 8, stride=4, padding=2),
            ChannelNorm(width),
            *_blocks(width, settings.decoder_blocks),
            ChannelNorm(width),
        )
        self.window, self.hop = settings.synthesis_window or settings.hop, settings.hop // STATES
        self.head = ISTFTHead(width, self.window, self.hop, padding="same")
        self.source: HarmonicSource | None = None
        if settings.source:
            self.source = HarmonicSource(width, settings.sample_rate, self.hop, self.window)
        self._begin()

    def _begin(self) -> None:
        """The weights that training starts from."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # 0.02 would start the latent near nothing
        for inner in (self.encoder[-1], self.encoder[0], self.decoder[0]):
            assert isinstance(inner.weight, Tensor)
            nn.init.kaiming_normal_(inner.weight, nonlinearity="linear")
        if self.source is not None:  # at first the pulses are louder than what has no phase
            with torch.no_grad():
                self.head.out.bias[: self.window // 2 + 1] -= SOFTER

    def latent(self, wave_BW: Tensor) -> Tensor:
        """latent_BFD of the wave, float32."""
        return self.encoder(self.features(wave_BW)).transpose(1, 2).float()

    def sound(self, latent_BFD: Tensor) -> Tensor:
        """wave_BW of the (quantised) latent; the inverse STFT in float32."""
        return self.voice(self.hidden(latent_BFD))

    def hidden(self, latent_BFD: Tensor) -> Tensor:
        """hidden_BTD of the (quantised) latent, four states a frame."""
        return self.decoder(latent_BFD.transpose(1, 2)).transpose(1, 2)

    def hertz(self, hidden_BTD: Tensor) -> Tensor | None:
        """hertz_BT of the source; None without one."""
        if self.source is None:
            return None
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            return self.source.hertz(self.source.pitch(hidden_BTD.float()))

    def voice(
        self,
        hidden_BTD: Tensor,
        hertz_BT: Tensor | None = None,
        anchor: int = 0,
        at_anchor_B: Tensor | None = None,
    ) -> Tensor:
        """wave_BW of hidden states. A source's pulses have this pitch (None: its own), of which
        `at_anchor_B` periods have passed where state `anchor` begins."""
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            hidden_BTD = hidden_BTD.float()
            if self.source is None:
                return self.head(hidden_BTD)
            hertz_BT = self.hertz(hidden_BTD) if hertz_BT is None else hertz_BT
            assert hertz_BT is not None
            rate = self.settings.sample_rate
            cycles_BW = cycles(hertz_BT, self.hop, rate, anchor, at_anchor_B)
            pulses_BKT = self.source(hidden_BTD, hertz_BT, cycles_BW)
            log_BKT, phase_BKT = self.head.out(hidden_BTD).transpose(1, 2).chunk(2, 1)
            head_BKT = torch.polar(log_BKT.exp().clamp_max(LOUDEST), phase_BKT)
            return self.head.istft(head_BKT + pulses_BKT)

    def weights(self) -> dict[str, Tensor]:
        """What singing needs: parameters and codebooks, without moving averages and windows."""
        learned = dict(self.named_parameters())
        return {**learned, "quantiser.codebooks_SCD": self.quantiser.codebooks_SCD}


class Features(nn.Module):
    """Log-mel bands, and log-magnitudes below LOW_HZ in a longer window; all about +-1."""

    mel_KB: Tensor
    mel_window: Tensor
    pitch_window: Tensor

    def __init__(self, settings: NetworkSettings):
        super().__init__()
        rate, bands = settings.sample_rate, settings.mel_bands
        self.hop, self.low_bins = settings.hop // 2, low_bins(settings)
        self.width = bands + self.low_bins
        bins = settings.mel_window // 2 + 1
        scale = {"norm": "slaney", "mel_scale": "slaney"}
        mel_KB = melscale_fbanks(bins, 0.0, rate / 2, bands, rate, **scale)
        self.register_buffer("mel_KB", mel_KB, persistent=False)
        self.register_buffer("mel_window", torch.hann_window(settings.mel_window), persistent=False)
        pitch_window = torch.hann_window(settings.pitch_window)
        self.register_buffer("pitch_window", pitch_window, persistent=False)

    @torch.no_grad()
    def forward(self, wave_BW: Tensor) -> Tensor:
        with torch.autocast(wave_BW.device.type, enabled=False):
            wide_BKT = magnitude(wave_BW.float(), self.mel_window, self.hop)
            mel_BKT = torch.einsum("bkt,km->bmt", wide_BKT, self.mel_KB)
            both_BKT = torch.cat([mel_BKT.clamp_min(LOG_FLOOR).log() + 5, self.pitch(wave_BW)], 1)
            return both_BKT / 4

    def pitch(self, wave_BW: Tensor) -> Tensor:
        """Natural log-magnitudes of the bins below LOW_HZ, [B, low_bins, T]."""
        narrow_BKT = magnitude(wave_BW.float(), self.pitch_window, self.hop)
        return (narrow_BKT[:, 1 : self.low_bins + 1] + 1e-3).log()


def low_bins(settings: NetworkSettings) -> int:
    """Bins of the pitch window that lie below LOW_HZ and a little."""
    return int(LOW_HZ * settings.pitch_window / settings.sample_rate) - 4


def magnitude(wave_BW: Tensor, window: Tensor, hop: int) -> Tensor:
    """|STFT| as [B, window / 2 + 1, W / hop]: W a multiple of the hop, silence beyond both ends."""
    return stft(wave_BW, window, hop).abs()


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [B, D, T]."""

    def forward(self, x_BDT: Tensor) -> Tensor:
        return super().forward(x_BDT.transpose(1, 2)).transpose(1, 2)


def _blocks(width: int, count: int) -> list[nn.Module]:
    return [ConvNeXtBlock(width, 3 * width, layer_scale_init_value=1 / count) for _ in range(count)]


def _nearest(x_ND: Tensor, codebook_CD: Tensor) -> Tensor:
    """Index of the nearest code by Euclidean distance."""
    return (codebook_CD.square().sum(1) - 2 * x_ND @ codebook_CD.T).argmin(1)


def _gather(x_ND: Tensor, index_N: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    """Per code: how many vectors it has, and their sum."""
    ones_N = torch.ones(len(x_ND), device=x_ND.device)
    count_C = torch.zeros(codes, device=x_ND.device).index_add_(0, index_N, ones_N)
    sum_CD = torch.zeros(codes, x_ND.shape[1], device=x_ND.device).index_add_(0, index_N, x_ND)
    return count_C, sum_CD
