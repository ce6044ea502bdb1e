"""A graft starts no worse than knowing nothing.

New rows stand as far from the mean as old ones, and what a base's hidden states make of that is the
base's own affair: SmolLM2-135M began at 10.7 nats for a slot of 1,024 codes, where ln 1024 = 6.9 is
a guess. Confident and wrong, it first has to unlearn what nobody taught it.

So the grafted model reads short made-up songs, and a block of rows (a slot's codes, pitches,
lengths) whose logits spread too far is turned down: in the directions in which hidden states h
point, and the more the further they reach there,

    D' = D (1 + E[h h^T] / t)^(-1/2)      D: the rows around their mean; t as large as will do

Almost all of the rows lies in other directions and stays, so codes that were near each other still
are, and those that a tied base reads stay apart. (Rows scaled as a whole would keep 3 % of their
spread in SmolLM2, which then learns more slowly than from the loud ones.) A block that is quiet
enough is not touched.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from distill.writing.batches import Batch, build
from distill.writing.prompts import Coded, Passage, Piece, Written
from distill.writing.vocabulary import AudioVocabulary, Span

# nats by which a block may begin worse than a guess (a tenth is allowed) on songs that were not
# heard before; and what is aimed at on those that were
MOST_NATS = 0.08
AIM = 0.02
ROUNDS = 8  # of new songs
HALVINGS = 14  # in the search for t, over nine orders of magnitude
SHRINK = 0.7  # of its spread, a time, where that does not do
TOKENS = 192  # of a made-up song, or fewer where the base reaches less far
SONGS = 2  # a round
WORDS = (
    "folk calm low bright row your boat gently down the stream la twinkle star night sea".split()
)
SYLLABLES = ("", "r o", "y O r", "b o t", "s t r I m", "l i, d", "s i")


class Grafted(Protocol):
    """What is read of a Student."""

    vocabulary: AudioVocabulary
    tied: bool

    @property
    def longest(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    def encode_text(self, text: str) -> list[int]: ...
    def opened(self, header: str) -> list[int]: ...
    def write(self, coded: Coded) -> Written: ...
    def hidden(self, ids_BT: Tensor, positions_BT: Tensor | None = None) -> Tensor: ...
    def logits(self, hidden_ND: Tensor, start: int, end: int) -> Tensor: ...


@torch.no_grad()
def soften(student: Grafted, head_ND: nn.Parameter) -> None:
    """Turns down each block that is too loud, in place. `head_ND`: the new rows of the output
    table, which are the input's too where the base ties them."""
    before_ND, offset = head_ND.detach().clone(), student.vocabulary.rows - len(head_ND)
    heard: dict[Span, list[Tensor]] = defaultdict(list)
    for number in range(ROUNDS):
        loud = _loud(student, number)
        for span, states_ND in loud.items():
            heard[span].append(states_ND)
            block = slice(span.start - offset, span.stop - offset)
            _turn_down(student, head_ND[block], before_ND[block], span, torch.cat(heard[span]))
        if not loud:
            return
    while loud := _loud(student, 0):  # a base that no few directions describe
        for span in loud:
            block_CD = head_ND[span.start - offset : span.stop - offset]
            block_CD.copy_(block_CD.mean(0) + SHRINK * (block_CD - block_CD.mean(0)))


def _loud(student: Grafted, number: int) -> dict[Span, Tensor]:
    """The blocks that are too loud in round `number`, and the hidden states states_ND of it."""
    songs = [_song(student, number * SONGS + song) for song in range(SONGS)]
    hidden = [_hidden_ND(student, song) for song in songs]
    loud = {}
    for span, where in _blocks(student.vocabulary, songs):
        states_ND = torch.cat([h_ND[at_N] for h_ND, at_N in zip(hidden, where, strict=True)])
        if worse_by(student.logits(states_ND, span.start, span.stop)) > MOST_NATS:
            loud[span] = states_ND
    return loud


def _turn_down(
    student: Grafted, rows_CD: Tensor, before_CD: Tensor, span: Span, states_ND: Tensor
) -> None:
    """Writes into `rows_CD` as much of `before_CD` as stays quiet for these hidden states."""
    mean_D = before_CD.mean(0)
    spread_CD = before_CD - mean_D
    scaled_ND = states_ND / len(states_ND) ** 0.5
    _, strength_R, basis_RD = torch.linalg.svd(scaled_ND, full_matrices=False)
    along_CR, energy_R = spread_CD @ basis_RD.T, strength_R**2
    low, high = 1e-7 * float(energy_R.max()), 1e2 * float(energy_R.max())
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        rows_CD.copy_(mean_D + spread_CD - _lost(along_CR, energy_R, middle) @ basis_RD)
        nats = worse_by(student.logits(states_ND, span.start, span.stop))
        low, high = (middle, high) if nats <= AIM else (low, middle)
    rows_CD.copy_(mean_D + spread_CD - _lost(along_CR, energy_R, low) @ basis_RD)


def _lost(along_CR: Tensor, energy_R: Tensor, t: float) -> Tensor:
    return along_CR * (1 - (1 + energy_R / t).rsqrt())


def worse_by(logits_NC: Tensor) -> float:
    """Nats by which logits are worse than a guess for songs that have favourites among the codes,
    as real ones do: the excess, and how unlike codes are whatever came before."""
    centred_NC = logits_NC.double() - logits_NC.double().mean(-1, keepdim=True)
    return excess_nats(logits_NC) + float(centred_NC.mean(0).std())


def excess_nats(logits_NC: Tensor) -> float:
    """Mean nats by which logits are worse than a guess, where every code is equally likely."""
    logits_NC = logits_NC.double()
    nats_N = logits_NC.logsumexp(-1) - logits_NC.mean(-1)
    return float(nats_N.mean()) - float(torch.tensor(logits_NC.shape[-1]).double().log())


def _blocks(v: AudioVocabulary, songs: Sequence[Batch]) -> Iterator[tuple[Span, list[Tensor]]]:
    """The blocks of ids that one answer is chosen among, and where in each song that is."""
    for slot in range(v.format.slots):
        yield v.span(slot), [song.slots[slot].at_N for song in songs]
    yield v.pitch_span, [song.pitches.at_N for song in songs]
    yield v.length_span, [song.lengths.at_N for song in songs]


def _hidden_ND(student: Grafted, song: Batch) -> Tensor:
    return student.hidden(song.ids_BT.to(student.device))[0].float()


def _song(student: Grafted, seed: int) -> Batch:
    """A song of random notes and codes, alone in its row, as it would be written."""
    v, chance = student.vocabulary, Generator().manual_seed(seed)

    def drawn(least: int, most: int) -> int:
        return int(torch.randint(least, most + 1, (1,), generator=chance))

    def words(count: int) -> str:
        return " ".join(WORDS[drawn(0, len(WORDS) - 1)] for _ in range(count))

    header = f"style: {words(2)}; voice: {words(1)}\n{words(5)}\n{words(4)}\n"
    room = min(TOKENS, student.longest) - len(student.opened(header)) - 1
    pieces: list[Piece] = []
    while True:
        text, frames = SYLLABLES[drawn(0, len(SYLLABLES) - 1)], drawn(1, min(8, v.longest))
        room -= len(student.encode_text(text)) + 2 + frames * v.format.slots
        if room < 0 and pieces:
            break
        pieces.append(Piece(text, drawn(v.lowest_midi, v.highest_midi), frames))
    frames = sum(piece.frames or 0 for piece in pieces)
    codes = [torch.randint(size, (frames,), generator=chance) for size in v.format.slot_sizes]
    passage = Passage("made up", header, tuple(pieces), 0, frames)
    written = student.write(Coded(passage, torch.stack(codes, 1)))
    return build([[written]], v, len(written), format_share=0.0)
