"""The graft: an open LLM learns new ids without moving what it knew.

Two tables stand side by side, in the input embedding and in the output head: the old rows, frozen
and untouched (so text logits stay bit-identical), and the new rows, float32 and trained. The head
is two matrix products; the logits of one slot are a product with that slot's rows alone. No step
ever builds a full vocabulary-sized gradient, which `modules_to_save` and `trainable_token_indices`
of PEFT both do. (Higgs-audio splits its head in the same way.)

**First values.** transformers' own `resize_token_embeddings` gives all new rows nearly the same
vector (spread 3e-5 of the old one): right for a special token, wrong for thousands of codes. A
codec's codebook says which codes sound alike, so row k of a slot starts at

    mean(old rows) + s * ((C_k - mean C) P + offset of the slot)

with C the slot's code vectors, P one random map with orthonormal rows for all slots, and s such
that a new row is as far from the mean as a median old row. Pitch and length symbols start smooth in
their value: near keys, near rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from distill.errors import GraftError
from distill.lm.families import text_config
from distill.writing.vocabulary import AudioVocabulary, Span

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Codebooks = Sequence[Tensor]  # per slot its code vectors (C codes, d), d equal for all
# enough for a mean and a median; a copy of all rows of a large table would cost gigabytes
SAMPLED_ROWS = 20_000
# of a code row's squared distance from the mean: which slot; the rest: which code
OFFSET_SHARE = 0.25
NOISE = 1e-3  # of the distance from the mean, where rows begin at the mean
SINES = 8  # in the first rows of score symbols
PITCH_PERIOD = 48.0  # of the slowest sine, in semitones
LENGTH_PERIOD = 8.0  # of the slowest sine, in octaves of length


class Grafted(nn.Module):
    """Two tables side by side: the stock one, and the new rows new_ND."""

    old: nn.Embedding | nn.Linear

    def __init__(self, old: nn.Embedding | nn.Linear, new: nn.Parameter):
        super().__init__()
        self.old = old
        self.new = new

    @property
    def weight(self) -> nn.Parameter:
        """The stock table alone: some families ask it for dtype or device (Mamba 2, Llama 4)."""
        return self.old.weight  # type: ignore[return-value]

    def joined(self) -> Tensor:
        """weight_VD of the one table that a merged model has, in the finer of the two dtypes."""
        dtype = torch.promote_types(self.old.weight.dtype, self.new.dtype)
        return torch.cat([self.old.weight.detach().to(dtype), self.new.detach().to(dtype)])


class GraftedEmbedding(Grafted):
    """Input embedding: ids below `old.num_embeddings` read the stock table, others the new rows."""

    old: nn.Embedding

    def forward(self, ids: Tensor) -> Tensor:
        old_rows = self.old.num_embeddings
        is_new = ids >= old_rows
        known = self.old(ids.masked_fill(is_new, 0))
        added = F.embedding((ids - old_rows).clamp(min=0), self.new)
        scale = getattr(self.old, "embed_scale", None)  # Gemma: its forward multiplies by sqrt(D)
        if scale is not None:
            added = added * (scale.to(added.dtype) if isinstance(scale, Tensor) else scale)
        return torch.where(is_new.unsqueeze(-1), added.to(known.dtype), known)


class GraftedHead(Grafted):
    """Output head of two tables, two matrix products."""

    old: nn.Linear

    def forward(self, hidden: Tensor) -> Tensor:
        known = self.old(hidden)
        added = F.linear(hidden, self.new.to(hidden.dtype))
        return torch.cat([known, added.to(known.dtype)], dim=-1)

    def span(self, hidden_ND: Tensor, start: int, end: int) -> Tensor:
        """Products with rows start ... end-1 of the joint vocabulary only."""
        old_rows = self.old.out_features
        parts = []
        if start < old_rows:
            parts.append(F.linear(hidden_ND, self.old.weight[start : min(end, old_rows)]))
        if end > old_rows:
            new_ND = self.new[max(start - old_rows, 0) : end - old_rows]
            parts.append(F.linear(hidden_ND, new_ND.to(hidden_ND.dtype)))
        if len(parts) == 1:
            return parts[0]
        return torch.cat([part.to(parts[0].dtype) for part in parts], dim=-1)


def add_rows(model: Any, rows: Sequence[Tensor], count: int) -> None:
    """Grafted, frozen tables of `count` rows for the model's; `rows`: new_ND of each or of both."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    new = [nn.Parameter(rows_ND.to(embedding.weight.device)) for rows_ND in rows]
    model.set_input_embeddings(GraftedEmbedding(embedding, new[0]))
    model.set_output_embeddings(GraftedHead(head, new[-1]))
    text_config(model.config).vocab_size = model.vocab_size = count
    model.requires_grad_(False)


def cut_tables(model: Any, count: int) -> list[Tensor]:
    """Leaves the first `count` rows in a stock model's tables; new_ND (float32) of those behind."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    behind = [table.weight.detach()[count:].float() for table in (embedding, head)]
    tied = is_tied(model)
    embedding.weight = nn.Parameter(embedding.weight.detach()[:count].clone())
    head.weight = embedding.weight if tied else nn.Parameter(head.weight.detach()[:count].clone())
    embedding.num_embeddings = head.out_features = count
    return behind


def is_tied(model: PreTrainedModel) -> bool:
    """Whether head and embedding are one tensor in fact, whatever the config says."""
    return model.get_input_embeddings().weight is model.get_output_embeddings().weight


def check_tables(embedding: nn.Module, head: nn.Module, where: str) -> None:
    """Raises GraftError where two tables could not stand in for this model's one."""
    if not isinstance(embedding, nn.Embedding) or not isinstance(head, nn.Linear):
        kinds = f"{type(embedding).__name__} and {type(head).__name__}"
        wrong = f"its tables are {kinds}, not Embedding and Linear"
    elif head.bias is not None:  # stock PEFT leaves it out of an adapter with trainable head rows
        wrong = "its head has a bias, which stock adapters drop"
    elif head.out_features != embedding.num_embeddings:
        wrong = f"{embedding.num_embeddings} input but {head.out_features} output rows"
    else:
        return
    raise GraftError(f"{where}: {wrong}; graft another base")


# --- first values ---------------------------------------------------------------------------------
def first_rows(
    old_VD: Tensor, vocabulary: AudioVocabulary, codebooks: Codebooks | None, seed: int, init: str
) -> Tensor:
    """First values new_ND (float32) of the new rows, in the statistics of the old ones.

    `init`: "codebooks" (see above); "gaussian", random directions at the same distance; "mean", the
    old mean plus NOISE.
    """
    step = max(1, len(old_VD) // SAMPLED_ROWS)
    sample_VD = old_VD.detach()[::step].float().cpu()
    mean_D = sample_VD.mean(0)
    distance = float((sample_VD - mean_D).norm(dim=1).median())
    width = len(mean_D)
    generator = Generator().manual_seed(seed)
    around_ND = torch.zeros(vocabulary.size, width)
    random_ND = F.normalize(torch.randn(vocabulary.size, width, generator=generator), dim=1)
    used = vocabulary.used_rows - vocabulary.base_rows  # padding stays at the mean
    around_ND[:used] = random_ND[:used]
    if init == "mean":
        around_ND *= NOISE
    elif init == "codebooks":
        if codebooks is None:
            raise GraftError('init "codebooks" without codebooks; give the codec\'s, or "gaussian"')
        _place_score(around_ND, vocabulary, generator)
        _place_codes(around_ND, vocabulary, codebooks, generator)
    elif init != "gaussian":
        raise GraftError(f'init "{init}" is unknown; choose codebooks, gaussian or mean')
    return mean_D + distance * around_ND


def _place_codes(
    around_ND: Tensor, vocabulary: AudioVocabulary, codebooks: Codebooks, generator: Generator
) -> None:
    sizes = vocabulary.format.slot_sizes
    shapes = [tuple(book.shape) for book in codebooks]
    if [shape[0] for shape in shapes] != list(sizes) or len({shape[1] for shape in shapes}) != 1:
        wanted = f"slots of {list(sizes)} codes"
        raise GraftError(f"codebooks of shapes {shapes} for {wanted}; give the codec's own")
    width = around_ND.shape[1]
    map_dD = _orthonormal(shapes[0][1], width, generator)
    for slot, book_Cd in enumerate(codebooks):
        vectors_Cd = book_Cd.detach().float().cpu()
        codes_CD = (vectors_Cd - vectors_Cd.mean(0)) @ map_dD
        codes_CD = codes_CD / codes_CD.norm(dim=1).median().clamp(min=1e-12)
        offset_D = F.normalize(torch.randn(width, generator=generator), dim=0)
        rows_CD = math.sqrt(1 - OFFSET_SHARE) * codes_CD + math.sqrt(OFFSET_SHARE) * offset_D
        around_ND[_rows(vocabulary.span(slot), vocabulary)] = rows_CD


def _place_score(around_ND: Tensor, vocabulary: AudioVocabulary, generator: Generator) -> None:
    width, pitch, length = around_ND.shape[1], vocabulary.pitch_span, vocabulary.length_span
    keys = torch.arange(vocabulary.lowest_midi, vocabulary.highest_midi + 1).float()
    behind_rest = _rows(Span(pitch.start + 2, pitch.stop), vocabulary)
    around_ND[behind_rest] = _smooth(keys, PITCH_PERIOD, width, generator)
    # 1 frame is to 2 as 8 frames to 16
    octaves = torch.arange(1, vocabulary.longest + 1).float().log2()
    behind_open = _rows(Span(length.start + 1, length.stop), vocabulary)
    around_ND[behind_open] = _smooth(octaves, LENGTH_PERIOD, width, generator)


def _smooth(values_N: Tensor, longest: float, width: int, generator: Generator) -> Tensor:
    """Unit rows that turn slowly with the value: sines an octave apart, mapped at random."""
    periods = longest / 2.0 ** torch.arange(min(SINES, width // 2))
    turns = 2 * math.pi * values_N[:, None] / periods
    # slow sines count more, so that neighbours stay neighbours
    strengths = periods.rsqrt().reciprocal().repeat(2)
    waves = torch.cat([turns.sin(), turns.cos()], dim=1) * strengths
    return F.normalize(waves @ _orthonormal(waves.shape[1], width, generator), dim=1)


def _orthonormal(rows: int, width: int, generator: Generator) -> Tensor:
    """A random map (rows, width) that keeps distances; where rows > width, only on average."""
    gaussian = torch.randn(max(rows, width), min(rows, width), generator=generator)
    basis = torch.linalg.qr(gaussian).Q
    return basis.T if rows <= width else basis


def _rows(span: Span, vocabulary: AudioVocabulary) -> slice:
    return slice(span.start - vocabulary.base_rows, span.stop - vocabulary.base_rows)
