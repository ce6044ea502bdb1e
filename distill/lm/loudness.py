"""A graft starts no worse than knowing nothing.

New rows stand as far from the mean as old ones, and what a base's hidden states make of that is the
base's own affair: SmolLM2-135M began at 10.5 nats for a slot of 1,024 codes, where ln 1024 = 6.9 is
a guess. Confident and wrong, it first has to unlearn what nobody taught it. So the grafted model
reads a short made-up song, and a block of rows (a slot's codes, pitches, lengths) whose logits
spread too far is drawn together around its own mean until it says almost nothing. Which code is
near which stays as it was; a block that is quiet enough is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from distill.lm.batches import Batch, build
from distill.lm.prompts import Passage, Piece, write
from distill.lm.vocabulary import AudioVocabulary, Span

# nats that a block may be worse than a guess, over codes that are all equally likely; real songs
# have favourites among them, and stay within a tenth of a nat
MOST_EXCESS = 0.005
ROUNDS = 16  # each at least takes a tenth away; a tied table needs several, as it is read too
LEAST_FACTOR = 0.1
TOKENS = 192  # of a made-up song, or fewer where the base reaches less far
SONGS = 2
HEADER = "style: folk; voice: low\nrow row row your boat\ngently down the stream\n"
SYLLABLES = ("r o", "y O r", "b o t", "s t r I m")


class Grafted(Protocol):
    """What is read of a Student."""

    vocabulary: AudioVocabulary
    tied: bool

    @property
    def longest(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    def encode_text(self, text: str) -> list[int]: ...
    def hidden(self, ids_BT: Tensor, positions_BT: Tensor | None = None) -> Tensor: ...
    def logits(self, hidden_ND: Tensor, start: int, end: int) -> Tensor: ...


@torch.no_grad()
def soften(student: Grafted, head_ND: nn.Parameter) -> None:
    """Draws the rows of each block that is too loud together, in place. `head_ND`: the new rows of
    the output table, which are the input's too where the base ties them."""
    songs = [_song(student, seed) for seed in range(SONGS)]
    hidden = [_hidden_ND(student, song) for song in songs]
    for _ in range(ROUNDS):
        loud = False
        for span, where in _blocks(student.vocabulary, songs):
            rows_ND = torch.cat([h_ND[at_N] for h_ND, at_N in zip(hidden, where, strict=True)])
            excess = excess_nats(student.logits(rows_ND, span.start, span.stop))
            if excess > MOST_EXCESS:
                loud = True
                _draw_together(head_ND, span, student.vocabulary, excess)
        if not loud:
            return
        if student.tied:
            hidden = [_hidden_ND(student, song) for song in songs]


def excess_nats(logits_NC: Tensor) -> float:
    """Mean nats by which logits are worse than a guess, where every code is equally likely."""
    logits_NC = logits_NC.double()
    nats_N = logits_NC.logsumexp(-1) - logits_NC.mean(-1)
    return float(nats_N.mean()) - float(torch.tensor(logits_NC.shape[-1]).double().log())


def _draw_together(head_ND: Tensor, span: Span, vocabulary: AudioVocabulary, excess: float) -> None:
    """Nats grow with the square of the spread, as long as it is small; then more slowly."""
    factor = max(LEAST_FACTOR, 0.9 * (MOST_EXCESS / excess) ** 0.5)
    first = vocabulary.rows - len(head_ND)
    block_CD = head_ND[span.start - first : span.stop - first]
    mean_D = block_CD.mean(0)
    block_CD.copy_(mean_D + factor * (block_CD - mean_D))


def _blocks(v: AudioVocabulary, songs: Sequence[Batch]) -> Iterator[tuple[Span, list[Tensor]]]:
    """The blocks of ids that one answer is chosen among, and where in each song that is."""
    for slot in range(v.format.slots):
        yield v.span(slot), [song.slots[slot].at_N for song in songs]
    yield v.pitch_span, [song.pitches.at_N for song in songs]
    yield v.length_span, [song.lengths.at_N for song in songs]


def _hidden_ND(student: Grafted, song: Batch) -> Tensor:
    return student.hidden(song.ids_BT.to(student.device))[0]


def _song(student: Grafted, seed: int) -> Batch:
    """A song of random notes and codes, alone in its row, as it would be written."""
    v, chance = student.vocabulary, Generator().manual_seed(seed)

    def drawn(least: int, most: int) -> int:
        return int(torch.randint(least, most + 1, (1,), generator=chance))

    room = min(TOKENS, student.longest) - len(student.encode_text(HEADER)) - 2
    pieces: list[Piece] = []
    while True:
        text, frames = SYLLABLES[drawn(0, len(SYLLABLES) - 1)], drawn(1, min(4, v.longest))
        room -= len(student.encode_text(text)) + 2 + frames * v.format.slots
        if room < 0 and pieces:
            break
        pieces.append(Piece(text, drawn(v.lowest_midi, v.highest_midi), frames))
    frames = sum(piece.frames or 0 for piece in pieces)
    codes = [torch.randint(size, (frames,), generator=chance) for size in v.format.slot_sizes]
    passage = Passage("made up", HEADER, tuple(pieces), 0, frames)
    written = write(passage, torch.stack(codes, 1), student.encode_text, v)
    return build([[written]], v, len(written), format_share=0.0)
