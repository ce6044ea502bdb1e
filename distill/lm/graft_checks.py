"""What a graft promises, measured on a few ids before a student is handed out.

- Text logits are bit-identical to the base's, and `Student.logits` are the stock forward's logits.
- No token sees what comes after it.
- Songs packed into one row are kept apart, by whichever way this family has: what stands in a
  neighbour changes nothing, and the states are those of the song alone.
- Read bit by bit with a cache, or in a batch that is padded on the left, a song is the same song.

So an LLM family that nobody has tried either works or says so in one line, before anything is
trained. A merged model is checked too, all but its text logits.

Windows of thousands of tokens would make this slow. A song up to the smallest window is attended
to as if there were none, which is exact; for a longer one a family's own packing is used where it
was tried beyond the window on at most MOST_IDS ids, else each song gets a row of its own, which
needs no trust.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from distill.errors import GraftError, first_line
from distill.lm import attention
from distill.lm.families import is_sparse, text_config
from distill.lm.held import quantised_as
from distill.writing.vocabulary import AudioVocabulary

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

# "songs": each is attended to alone; "positions": transformers sees that positions start again;
# "masks": it is given one a kind of layer; "rows": each song is a row of its own
Packing = Literal["songs", "positions", "masks", "rows"]
IDS = 16
HALF = IDS // 2
MOST_IDS = 160  # of a song that is longer than a window
PADDED = 3  # ids that stand before a row
# of the largest number, in float32 and in anything coarser: what rounding does to states that are
# computed in another way; and to those computed in the same way beside other songs (experts batch)
ROUNDING, HALF_ROUNDING = 1e-4, 5e-2
LEAK, HALF_LEAK = 1e-5, 1e-2
ROUTED_ELSEWHERE = 0.25  # of the tokens
CANNOT_RUN = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError)
OTHER = "graft another base (docs/families.md has those that work)"


class Grafted(Protocol):
    """What is checked of a Student."""

    base: str
    vocabulary: AudioVocabulary
    packing: Packing
    reach: int

    @property
    def model(self) -> Any: ...
    @property
    def body(self) -> Any: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def new_cache(self) -> Cache: ...
    def hidden(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor: ...
    def logits(self, hidden_ND: Tensor, start: int, end: int) -> Tensor: ...


def check_family(model: PreTrainedModel, base: str) -> None:
    """GraftError for what a graft cannot reach, before anything is put into the model."""
    config = text_config(model.config)
    if model.config.is_encoder_decoder or getattr(config, "is_encoder_decoder", False):
        raise GraftError(f"{base}: {model.config.model_type} is an encoder and a decoder; {OTHER}")
    if getattr(config, "hidden_size_per_layer_input", 0):
        tables = f"{model.config.model_type} reads ids by a table a layer (per-layer embeddings)"
        raise GraftError(f"{base}: {tables}, new ids have no row there; {OTHER}")


def text_logits(model: PreTrainedModel, rows: int) -> Tensor:
    """logits_BTV of the stock forward for a few ids spread over the first `rows`."""
    device = next(model.get_input_embeddings().parameters()).device
    with _at_rest(model), torch.no_grad():
        return model(input_ids=_spread(rows, IDS).to(device), use_cache=False).logits


def check_graft(student: Grafted, before_BTV: Tensor) -> None:
    """`check_student`, and text logits must be what they were (`before_BTV`: `text_logits`)."""
    model, rows = student.model, before_BTV.shape[-1]  # fewer where the tokenizer has more ids
    with _at_rest(model), torch.no_grad():
        text_BT = _spread(rows, IDS).to(student.device)
        after_BTV = model(input_ids=text_BT, use_cache=False).logits
        if not torch.equal(after_BTV[..., :rows], before_BTV):
            raise GraftError(f"{student.base}: the graft changed text logits; {OTHER}")
    check_student(student)


def check_student(student: Grafted) -> None:
    """Settles `packing` and `reach`. Raises GraftError unless the student is as promised above."""
    family = f"{student.base}: {student.model.config.model_type}"
    with _at_rest(student.model), torch.no_grad():
        ids_BT = _mixed(student.vocabulary, IDS).to(student.device)
        try:
            stock_TV = student.model(input_ids=ids_BT, use_cache=False).logits[0].float()
            whole_BTD = student.hidden(ids_BT)
        except CANNOT_RUN as error:
            reason = first_line(error)
            raise GraftError(f"{family} cannot read the new ids ({reason}); {OTHER}") from error
        ours_TV = student.logits(whole_BTD[0], 0, student.vocabulary.rows).float()
        if not _alike(student, ours_TV, stock_TV):
            changes = "changes its logits after the head"
            raise GraftError(f"{family} {changes}; add its row to families.py")
        if not _alike(student, student.hidden(ids_BT[:, :HALF]), whole_BTD[:, :HALF]):
            raise GraftError(f"{family} sees what comes after a token; {OTHER}")
        if not _sings_alike(student, ids_BT, whole_BTD):
            cache = "has a cache that does not give the same states, so it could not sing"
            raise GraftError(f"{family} {cache}; {OTHER}")
        student.packing, student.reach = _packing(student)
    attention.use(student.body.config, apart=student.packing == "songs")


def _spread(rows: int, count: int) -> Tensor:
    """ids_BT of one row, spread over the first `rows`."""
    return torch.arange(count).mul(max(1, rows // count)).clamp(max=rows - 1)[None]


def _mixed(vocabulary: AudioVocabulary, count: int) -> Tensor:
    """ids_BT of one row: text, and new ids between them."""
    ids_BT = _spread(vocabulary.base_rows, count)
    new_ids = vocabulary.base_rows + torch.arange(count) * max(1, vocabulary.size // count)
    ids_BT[:, 1::2] = new_ids.clamp(max=vocabulary.rows - 1)[1::2]
    return ids_BT


# --- singing --------------------------------------------------------------------------------------
def _sings_alike(student: Grafted, ids_BT: Tensor, whole_BTD: Tensor) -> bool:
    """Whether states are the same with a cache: several ids at once, and padded on the left."""
    try:
        alone_BTD = _in_steps(student, ids_BT, (HALF, HALF - 2, 1, 1))
        short_BT = torch.cat([ids_BT[:, :PADDED], ids_BT[:, :-PADDED]], -1)
        mask_BT = torch.ones_like(ids_BT)
        mask_BT[:, :PADDED] = 0
        both = torch.cat([short_BT, ids_BT]), torch.cat([mask_BT, torch.ones_like(mask_BT)])
        padded_BTD = _in_steps(student, both[0], (IDS - 2, 1, 1), both[1])
    except CANNOT_RUN:
        return False
    pairs = (
        (alone_BTD, whole_BTD),
        (padded_BTD[1:], whole_BTD),
        (padded_BTD[:1, PADDED:], whole_BTD[:, :-PADDED]),
    )
    return all(_alike(student, ours, stock) for ours, stock in pairs)


def _in_steps(
    student: Grafted, ids_BT: Tensor, steps: tuple[int, ...], mask_BT: Tensor | None = None
) -> Tensor:
    """hidden_BTD, read so many ids at a time with a cache."""
    counted_BT = torch.ones_like(ids_BT) if mask_BT is None else mask_BT
    positions_BT = (counted_BT.cumsum(-1) - 1).clamp(min=0)
    cache, parts, start = student.new_cache(), [], 0
    for step in steps:
        stop = start + step
        seen_BT = None if mask_BT is None else mask_BT[:, :stop]
        ids, positions = ids_BT[:, start:stop], positions_BT[:, start:stop]
        parts.append(student.hidden(ids, positions, cache, seen_BT))
        start = stop
    return torch.cat(parts, 1)


# --- packing --------------------------------------------------------------------------------------
def _packing(student: Grafted) -> tuple[Packing, int]:
    """The first way in which a song sees nothing of the one before, and the length it is good for.

    Beyond that length, and where no way is good, each song is a row of its own.
    """
    config = student.body.config
    window = attention.window_of(config)
    beyond = window + HALF if window + HALF <= MOST_IDS else HALF
    student.reach = attention.EVERY
    if attention.plain_causal(config):
        attention.use(config)
        student.packing = "songs"
        if _keeps_apart(student, min(HALF, window)):
            return "songs", window
        attention.use(config, apart=False)
    others: tuple[Packing, ...] = ("positions", "masks")
    for packing in others if attention.only_attends(config) else ():
        student.packing = packing
        if _keeps_apart(student, beyond):
            return packing, attention.EVERY if beyond > window else window
    return "rows", attention.EVERY


def _keeps_apart(student: Grafted, length: int) -> bool:
    """Whether a song of `length` behind another one is the song alone, whatever the other says."""
    ids_BT = _mixed(student.vocabulary, HALF + length).to(student.device)
    positions_BT = torch.cat([torch.arange(HALF), torch.arange(length)])[None].to(student.device)
    other_BT = ids_BT.clone()
    other_BT[:, :HALF] = ids_BT[:, :HALF].flip(-1)
    try:
        packed_BTD = student.hidden(ids_BT, positions_BT)[:, HALF:]
        beside_BTD = student.hidden(other_BT, positions_BT)[:, HALF:]
    except CANNOT_RUN:
        return False  # a family without position_ids, or without masks of four axes
    alone_BTD = student.hidden(ids_BT[:, HALF:])
    leak = LEAK if _is_exact(student) else HALF_LEAK
    if not _within(student, beside_BTD, packed_BTD, leak):
        return False
    return _alike(student, packed_BTD, alone_BTD)


def _is_exact(student: Grafted) -> bool:
    """Whether equal sums differ by float32's rounding alone; in 8 bits a token's activations are
    rounded by what else is in the batch."""
    return student.dtype == torch.float32 and quantised_as(student.model) == "none"


def _alike(student: Grafted, ours: Tensor, stock: Tensor) -> bool:
    """Equal up to rounding."""
    slack = ROUNDING if _is_exact(student) else HALF_ROUNDING
    return _within(student, ours, stock, slack)


def _within(student: Grafted, ours: Tensor, stock: Tensor, slack: float) -> bool:
    """Whether all tokens are; of coarse experts most, since rounding sends some to others."""
    largest = max(1e-6, float(stock.abs().max()))
    apart_N = (ours - stock).abs().amax(-1).flatten().float()
    coarse = not _is_exact(student) and is_sparse(student.body.config)
    counted = apart_N.quantile(1 - ROUTED_ELSEWHERE) if coarse else apart_N.max()
    return float(counted) <= slack * largest  # False for what is not a number


@contextmanager
def _at_rest(model: nn.Module) -> Iterator[None]:
    """Without dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
