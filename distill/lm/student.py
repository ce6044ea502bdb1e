"""The student: a stock causal LM with two grafted tables, trained by LoRA or in full.

    model, tokenizer = open_base("embedded/base")
    vocabulary = AudioVocabulary(rows_of(model, tokenizer), codec.format)
    student = graft(model, tokenizer, vocabulary, codec.codebooks(), base="embedded/base")
    student.adapt(LoraSettings(rank=32))
    hidden_BTD = student.hidden(ids_BT, positions_BT)  # packed songs do not see each other
    logits_NC = student.logits(hidden_ND, start, end)  # one slot's rows, not the whole vocabulary
    student.save_adapter(folder)  # plain PEFT can load it

On disk an adapter is stock PEFT: linear LoRA (arXiv 2106.09685) plus the new rows in the form of
its `trainable_token_indices`, in float16 unless asked otherwise; beside it `distill.json` holds the
vocabulary and the fingerprint of the base, and `load` refuses any other base.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from distill.config.ranges import Checked, at_least, share
from distill.errors import AdapterError, GraftError
from distill.folders import Json, atomic_folder, locate, public_name
from distill.lm import attention
from distill.lm.base import (
    Quantisation,
    TextCoder,
    fingerprint,
    folder_of,
    name_of,
    open_base,
    opening_of,
)
from distill.lm.families import after_head, cache_word, is_nested, text_config, text_model
from distill.lm.gguf_base import source
from distill.lm.graft import (
    Grafted,
    GraftedHead,
    add_rows,
    check_tables,
    cut_tables,
    first_rows,
    is_tied,
)
from distill.lm.graft_checks import Packing, check_family, check_graft, text_logits
from distill.lm.held import cannot_quantise, check_held, quantised_as
from distill.lm.layers import kept_layers
from distill.lm.loudness import soften
from distill.runtime import torchaudio_standin
from distill.writing import prompts
from distill.writing.vocabulary import AudioVocabulary

torchaudio_standin.install()
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers import Cache, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.masking_utils import create_masks_for_generate
from transformers.pytorch_utils import Conv1D

log = logging.getLogger("distill")
CARD = "distill.json"
WEIGHTS = "adapter_model.safetensors"
PEFT_ROOT = "base_model.model."
TOKENS = "token_adapter.trainable_tokens_delta"


@dataclass(frozen=True)
class LoraSettings(Checked):
    """Low-rank updates of every linear layer of the body: W + alpha / rank * B A."""

    rank: int = at_least(1, default=32)
    alpha: int = at_least(1, default=64)
    dropout: float = share(default=0.0, one=False)


@dataclass(eq=False, repr=False)
class Student:
    """A causal LM that also speaks an AudioVocabulary: of `graft`, `load`, `merge.load_merged`.

    opening: the ids that stand before every song, as the base's own tokenizer puts them before a
    text; () for what was trained without.
    """

    model: Any  # a PreTrainedModel, whose tables and forward no type describes
    tokenizer: PreTrainedTokenizerBase
    vocabulary: AudioVocabulary
    base: str
    base_fingerprint: str
    base_pieces: int
    tied: bool
    lora: LoraSettings | None = None
    packing: Packing = "rows"  # needs no trust; `check_student` looks for a better one
    reach: int = attention.EVERY  # tokens of a song: a longer one is a row of its own
    layers: tuple[int, ...] | None = None  # of its base's, where only some are kept
    opening: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.text = TextCoder(self.tokenizer, self.base_pieces)
        self._finish = after_head(self.model.config)
        self.body = text_model(self.model)
        self._cache_word = cache_word(type(self.body))

    @property
    def embedding(self) -> nn.Embedding | Grafted:
        """The input table."""
        return self.model.get_input_embeddings()

    @property
    def head(self) -> nn.Linear | GraftedHead:
        """The output table."""
        return self.model.get_output_embeddings()

    @property
    def device(self) -> torch.device:
        """Where the input table is."""
        return next(self.embedding.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the base is held in (the new rows are float32 in any case)."""
        table = self.embedding
        return (table.old if isinstance(table, Grafted) else table).weight.dtype

    @property
    def longest(self) -> int:
        """Tokens that the model's positions reach."""
        config = text_config(self.model.config)
        return int(getattr(config, "max_position_embeddings", attention.EVERY))

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text, all of them text (below `vocabulary.base_rows`) whatever it spells."""
        return self.text.encode(text)

    def decode_text(self, ids: Sequence[int]) -> str:
        """Text of ids below `vocabulary.base_rows`."""
        return self.text.decode(list(ids))

    def opened(self, header: str) -> list[int]:
        """Ids before a song's pieces: the opening, the header, `sing`."""
        return [*self.opening, *self.encode_text(header), self.vocabulary.sing]

    def write(self, coded: prompts.Coded) -> prompts.Written:
        """A passage and its codes as this student reads them. FitError: see `prompts.write`."""
        passage, codes_FS = coded.passage, coded.codes_FS
        return prompts.write(passage, codes_FS, self.encode_text, self.vocabulary, self.opening)

    def tokens_of(self, passage: prompts.Passage, frames: int) -> int:
        """How many ids `write` makes of a passage of so many frames."""
        return prompts.tokens_of(passage, frames, self.encode_text, self.vocabulary, self.opening)

    # --- forward ----------------------------------------------------------------------------------
    def hidden(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states hidden_BTD, after the final norm; `cache` is extended in place.

        Without cache and mask, songs (`positions_BT` that start again) do not see each other.
        """
        # use_cache=False matters: with its own cache transformers does not look for packed songs
        options: dict[str, object] = {"use_cache": cache is not None, self._cache_word: cache}
        if positions_BT is not None:
            if cache is None and attention_mask is None:
                return self._packed(ids_BT, positions_BT)
            options["position_ids"] = positions_BT
        if attention_mask is not None:
            options["attention_mask"] = attention_mask
        return self.body(input_ids=ids_BT, **options).last_hidden_state

    def new_cache(self) -> Cache:
        """An empty key-value cache for `hidden`, with what each kind of layer remembers."""
        return DynamicCache(config=self.model.config)

    def _packed(self, ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        """hidden_BTD of songs packed into rows, each as if it stood alone."""
        lengths = attention.song_lengths(positions_BT)
        packing = self.packing if max(lengths) <= self.reach else "rows"
        if packing == "rows" and len(lengths) > len(ids_BT):
            return self._one_song_a_row(ids_BT, positions_BT, lengths)
        options: dict[str, object] = {"position_ids": positions_BT, "use_cache": False}
        if packing == "songs":
            options["attention_mask"] = attention.lengths_mask(lengths)
        elif packing == "masks":
            options["attention_mask"] = self._masks(positions_BT)
        return self.body(input_ids=ids_BT, **options).last_hidden_state

    def _masks(self, positions_BT: Tensor) -> object:
        """A mask for each kind of layer, by which packed songs do not see each other."""
        like_BT0 = torch.empty(*positions_BT.shape, 0, dtype=self.dtype, device=self.device)
        return create_masks_for_generate(self.body.config, like_BT0, None, None, positions_BT)

    def _one_song_a_row(self, ids_BT: Tensor, positions_BT: Tensor, lengths: list[int]) -> Tensor:
        """Songs of like length side by side, filled up behind their end, which nobody sees."""
        parts, order = [], []
        for starts_S, lengths_S in attention.rows_of_songs(lengths):
            steps_T = torch.arange(int(lengths_S.max()))
            own_ST = steps_T < lengths_S[:, None]
            at_ST = starts_S[:, None] + torch.minimum(steps_T, lengths_S[:, None] - 1)
            first_S1 = positions_BT.flatten()[starts_S.to(self.device), None]
            states_STD = self.body(
                input_ids=ids_BT.flatten()[at_ST.to(self.device)],
                position_ids=first_S1 + steps_T.to(self.device),
                use_cache=False,
            ).last_hidden_state
            parts.append(states_STD[own_ST.to(self.device)])
            order.append(at_ST[own_ST])
        back_N = torch.cat(order).argsort().to(self.device)
        return torch.cat(parts)[back_N].unflatten(0, ids_BT.shape)

    def logits(self, hidden_ND: Tensor, start: int, end: int) -> Tensor:
        """logits_NC of rows start ... end-1 of the joint vocabulary, as of the stock model."""
        rows = self.vocabulary.rows
        if not 0 <= start < end <= rows:
            raise GraftError(f"rows {start} to {end}: this model has 0 to {rows}; ask within them")
        head = self.head
        if isinstance(head, GraftedHead):
            return self._finish(head.span(hidden_ND, start, end))
        return self._finish(F.linear(hidden_ND, head.weight[start:end]))

    # --- what trains ------------------------------------------------------------------------------
    def adapt(self, settings: LoraSettings, seed: int = 0) -> None:
        """Puts LoRA on every linear layer of the body; it and the new rows train, nothing else."""
        if self.lora is not None:
            raise GraftError(f"{self.base}: has LoRA already; adapt a fresh graft")
        new_rows = self.new_rows()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(self._lora_config(settings), self.model)
        self.lora = settings
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(".lora_" in name)
            if ".lora_" in name:  # float32 to train, whatever the base is held in
                parameter.data = parameter.data.float()
        for parameter in new_rows.values():
            parameter.requires_grad_(True)

    def set_dropout(self, dropout: float) -> None:
        """Another LoRA dropout than it was made with. GraftError without LoRA."""
        if self.lora is None:
            raise GraftError(f"{self.base}: has no LoRA, so nothing to drop; adapt it first")
        self.lora = replace(self.lora, dropout=dropout)
        for module in self.model.modules():
            if isinstance(module, LoraLayer):
                module.lora_dropout["default"] = nn.Dropout(dropout) if dropout else nn.Identity()

    def train_all(self, old_rows: bool = True) -> None:
        """Everything trains; with `old_rows=False` all but the base's rows of the two tables."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        if not old_rows:
            for table in self._grafted():
                table.old.weight.requires_grad_(False)

    def new_rows(self) -> dict[str, nn.Parameter]:
        """The new rows by parameter name: one table where the base ties its head, else two."""
        tables = self._grafted()[:1] if self.tied else self._grafted()
        return {f"{name_of(self.model, table)}.new": table.new for table in tables}

    def _grafted(self) -> tuple[Grafted, ...]:
        """Both grafted tables, the input's first. Raises GraftError for a merged model."""
        embedding, head = self.embedding, self.head
        if isinstance(embedding, Grafted) and isinstance(head, Grafted):
            return embedding, head
        ways = "graft its base instead, or train it all"
        raise GraftError(f"{self.base}: is merged, its tables are one; {ways}")

    def _lora_config(self, settings: LoraSettings, **more: Any) -> LoraConfig:
        linear = self._linear_names()
        if not linear:
            raise GraftError(f"{self.base}: no linear layers for LoRA in its body; train all of it")
        targets: list[str] | str = linear
        if is_nested(self.model.config):  # eyes and ears have layers of the same names
            inside = re.escape(name_of(self.model, self.body))
            targets = rf".*{inside}\..*\.({'|'.join(map(re.escape, linear))})"
        return LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=targets,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in self.body.modules()),
            task_type="CAUSAL_LM",
            **more,
        )

    def _linear_names(self) -> list[str]:
        """Last names of the body's linear layers that stock adapters can stand on: no routers, no
        layers that Mamba's kernels read past, none that PEFT takes for a name of fused experts."""
        names: set[str] = set()
        others: set[str] = set()
        for path, module in self.body.named_modules():
            name = path.removesuffix(".base_layer").rpartition(".")[2]
            if isinstance(module, nn.Linear | Conv1D) and ".lora_" not in path:
                is_router = "Router" in type(module).__name__  # gives more than one tensor
                (others if is_router else names).add(name)
            if hasattr(module, "A_log") and hasattr(module, "D"):
                others.add("out_proj")
        config = LoraConfig(target_modules=sorted(names - others))
        convert_peft_config_for_transformers(config, self.model, None)
        return sorted(config.target_modules or ())

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name; a shared one once."""
        parameters = self.model.named_parameters()
        return {name: parameter for name, parameter in parameters if parameter.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """The trained parameters by name, not copied: what a checkpoint stores."""
        return {name: parameter.detach() for name, parameter in self.trainable().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` gave. Raises AdapterError unless names and shapes agree."""
        parameters = self.trainable()
        odd = sorted(parameters.keys() ^ state.keys())
        wrong = odd or sorted(n for n, p in parameters.items() if p.shape != state[n].shape)
        if wrong:
            fault = f"{wrong[0]} and {len(wrong) - 1} more: model and state differ"
            raise AdapterError(f"{fault}; use the same recipe")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state[name])

    def to(self, device: torch.device | str) -> Student:
        """Moves the model."""
        self.model.to(device)
        return self

    # --- on disk ----------------------------------------------------------------------------------
    def write_card(self, folder: Path, form: str) -> None:
        """Writes `distill.json`: the student's form, its base, and how its ids are laid out."""
        card = {
            "version": 1,
            "form": form,
            "base": self.base if form == "adapter" else public_name(self.base),
            "base_fingerprint": self.base_fingerprint,
            "base_pieces": self.base_pieces,
            "layers": self.layers,
            "opening": list(self.opening),
            "vocabulary": asdict(self.vocabulary),
            "lora": asdict(self.lora) if self.lora else None,
        }
        if form == "adapter":  # it fits the weights that it was trained on, as they were held
            card |= {"dtype": str(self.dtype).removeprefix("torch.")}
            card |= {"quantise": quantised_as(self.model)}
        (folder / CARD).write_text(json.dumps(card, indent=1) + "\n")

    def save_adapter(self, folder: str | Path, dtype: str = "float16") -> Path:
        """Writes a stock PEFT adapter and `distill.json`, whole or not at all; gives the folder.

        Plain PEFT loads the base, `resize_token_embeddings(vocabulary.rows)`, then the adapter.
        AdapterError without LoRA, and for parameters that `dtype` cannot hold.
        """
        if self.lora is None:
            fault = "was trained in full, which no adapter can hold"
            raise AdapterError(f"{self.base}: {fault}; write it with merge")
        names, state = self._names_on_disk(), {}
        for name, tensor in self.state().items():
            tensor = tensor.to(getattr(torch, dtype)).cpu().contiguous()
            if not bool(torch.isfinite(tensor).all()):
                raise AdapterError(f"{name}: has values that {dtype} cannot hold; save in float32")
            state[names[name]] = tensor
        rows = self.vocabulary.rows
        new_ids = list(range(rows - len(self._grafted()[0].new), rows))
        tables = [name.split(".")[-2] for name in self.new_rows()]
        more = {"base_model_name_or_path": self.base, "inference_mode": True}
        indices = dict.fromkeys(tables, new_ids)
        config = self._lora_config(self.lora, trainable_token_indices=indices, **more)
        about = {"format": "pt", "base_fingerprint": self.base_fingerprint}
        with atomic_folder(folder) as inside:
            config.save_pretrained(str(inside))
            save_file(state, inside / WEIGHTS, metadata=about)
            self.write_card(inside, "adapter")
        return Path(folder)

    def _names_on_disk(self) -> dict[str, str]:
        """Our parameter names -> PEFT's keys."""
        names = {name: PEFT_ROOT + name.replace(".default.", ".") for name in self.trainable()}
        rows = {name: f"{PEFT_ROOT}{name.removesuffix('new')}{TOKENS}" for name in self.new_rows()}
        return names | rows


# --- making one -----------------------------------------------------------------------------------
def rows_of(model: Any, tokenizer: PreTrainedTokenizerBase | None = None) -> int:
    """Where a base's new ids begin: behind its tables' rows, often more than its tokenizer has ids
    (Qwen), and behind the ids of its `tokenizer`, now and then more than rows (Gemma 3 1B)."""
    rows = int(model.get_input_embeddings().weight.shape[0])
    return rows if tokenizer is None else max(rows, _ids_of(tokenizer))


def _ids_of(tokenizer: PreTrainedTokenizerBase) -> int:
    return 1 + max(tokenizer.get_vocab().values())


def graft(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: AudioVocabulary,
    codebooks: Sequence[Tensor] | None = None,
    seed: int = 0,
    init: str = "codebooks",
    base: str | None = None,
    soft: bool = True,
) -> Student:
    """Puts the vocabulary's new rows beside the model's own, in place; nothing trains yet.

    What it promises is measured before it returns (graft_checks): text logits bit-identical,
    `logits` equal to the stock forward's, packed songs kept apart. `init`: see `graft.first_rows`;
    `base`: its name for adapters. Raises GraftError.
    """
    where = base or _public_name(model)
    held = rows_of(model)
    pieces = min(held, _ids_of(tokenizer))
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    check_family(model, where)
    check_tables(*tables, where)
    _check_rows(model, tokenizer, vocabulary.base_rows, where)
    _refuse_named(tokenizer, vocabulary, where)
    before_BTV = text_logits(model, held)
    tied = is_tied(model)
    identity = fingerprint(model, tokenizer, folder_of(model))
    rows = [
        _behind_surplus(
            first_rows(table.weight[:pieces], vocabulary, codebooks, table_seed, init),
            table.weight[:pieces],
            vocabulary.base_rows - held,
        )
        for table_seed, table in enumerate(tables[:1] if tied else tables, seed)
    ]
    add_rows(model, rows, vocabulary.rows)
    student = Student(
        model, tokenizer, vocabulary, where, identity, pieces, tied, opening=opening_of(tokenizer)
    )
    student.layers = kept_layers(model)
    check_graft(student, before_BTV)
    if soft:
        soften(student, [*student.new_rows().values()][-1])
    return student


def _check_rows(model: Any, tokenizer: PreTrainedTokenizerBase, begin: int, where: str) -> None:
    """GraftError unless the vocabulary begins behind rows and ids, and the table holds every piece
    of text: what it may lack are added tokens (of pictures, say), which are never written."""
    rows, first = rows_of(model), rows_of(model, tokenizer)
    added = tokenizer.get_added_vocab()
    pieces = 1 + max((id for name, id in tokenizer.get_vocab().items() if name not in added))
    if pieces > rows:
        counts = f"its tokenizer has {pieces} pieces of text, its tables {rows} rows"
        raise GraftError(f"{where}: {counts}; use its own tokenizer")
    if begin != first:
        counts = f"has {rows} rows and {_ids_of(tokenizer)} ids, the vocabulary begins at {begin}"
        raise GraftError(f"{where}: {counts}; use rows_of(model, tokenizer), {first}")


def _behind_surplus(rows_ND: Tensor, old_VD: Tensor, surplus: int) -> Tensor:
    """New rows, before them one at the old rows' mean for each id that the table has no row for."""
    if not surplus:
        return rows_ND
    mean_D = old_VD.detach().float().mean(0).cpu()
    return torch.cat([mean_D.expand(surplus, -1), rows_ND])


def _refuse_named(
    tokenizer: PreTrainedTokenizerBase, vocabulary: AudioVocabulary, where: str
) -> None:
    """GraftError where a base has the names of the new ids already: it is a singer, or the like."""
    name = vocabulary.name(vocabulary.sing)
    if name in tokenizer.get_vocab():
        ways = "continue a singer with base.singer, or graft a base without such tokens"
        raise GraftError(f"{where}: its tokenizer has {name} already; {ways}")


def regraft(merged: Student, base: str) -> Student:
    """A merged singer as a base, in place: its new rows stand apart again, to train as they are.
    `base`: the merged folder, for adapters to stand on. GraftError: see `graft`."""
    model, v = merged.model, merged.vocabulary
    identity = fingerprint(model, merged.tokenizer, folder_of(model))
    new = cut_tables(model, v.base_rows)
    before_BTV = text_logits(model, v.base_rows)
    add_rows(model, new[:1] if merged.tied else new, v.rows)
    student = replace(merged, base=base, base_fingerprint=identity)
    check_graft(student, before_BTV)
    return student


def _public_name(model: PreTrainedModel) -> str:
    """A name for the base that means something elsewhere: a hub id, or the last part of a path."""
    name = str(getattr(model, "name_or_path", "") or model.config.model_type)
    return source(Path(name)).get("file") or public_name(name)


# --- opening one ----------------------------------------------------------------------------------
def load(
    base: str | Path,
    adapter: str | Path,
    dtype: str | None = None,
    quantise: Quantisation | None = None,
) -> Student:
    """A student of a base and an adapter, ready to sing or train. AdapterError for another base.

    `dtype`, `quantise`: how the base is held; None: as when the adapter was trained, for these are
    the weights that it fits. `base` may be a merged singer, where the adapter was trained on one.
    """
    check_held(dtype, quantise)
    folder = locate(str(adapter))
    card, vocabulary = read_card(folder, "adapter")
    held = dtype or card.get("dtype", "float32"), _quantised(card, quantise, folder.name)
    model, tokenizer = open_base(base, *held, layers_on(card))
    identity = fingerprint(model, tokenizer, folder_of(model))
    if identity != card["base_fingerprint"]:
        theirs = f"{card['base']} ({card['base_fingerprint'][:12]})"
        fault = f"was made for base {theirs}, not for {Path(base).name} ({identity[:12]})"
        raise AdapterError(f"{folder.name}: {fault}; give that base")
    if rows_of(model) == vocabulary.rows:  # a merged singer: it has them already
        parts = (card["base"], identity, card["base_pieces"], is_tied(model))
        student = regraft(Student(model, tokenizer, vocabulary, *parts), card["base"])
    else:
        student = graft(
            model, tokenizer, vocabulary, init="gaussian", base=card["base"], soft=False
        )
    student.opening = opening_in(card)
    student.adapt(LoraSettings(**card["lora"]))
    ours = {theirs: name for name, theirs in student._names_on_disk().items()}
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        unread = f"{WEIGHTS} cannot be read ({error})"
        raise AdapterError(f"{folder.name}: {unread}; fetch or save it again") from error
    student.load_state({ours.get(name, name): tensor for name, tensor in state.items()})
    return student


def layers_on(card: Json) -> tuple[int, ...] | None:
    """Which layers of its base a student has; None: all of them."""
    layers = card.get("layers")  # older cards do not say: all
    return None if layers is None else tuple(layers)


def opening_in(card: Json) -> tuple[int, ...]:
    """The opening that `distill.json` states; a card without one is of a time that had none."""
    return tuple(map(int, card.get("opening") or ()))


def vocabulary_in(folder: Path) -> AudioVocabulary:
    """The vocabulary of an adapter or a merged folder. AdapterError without a readable card."""
    return read_card(folder, None)[1]


def _quantised(card: Json, asked: Quantisation | None, name: str) -> Quantisation:
    """How to quantise an adapter's base: as asked, else as it was trained, else, where this machine
    cannot, not at all, and then it is said."""
    wanted: Quantisation = asked or card.get("quantise", "none")
    if asked or (why := cannot_quantise(wanted)) is None:
        return wanted
    words = "%s: was trained on %s weights, which cannot be made here (%s); its base stays whole"
    log.warning(words, name, wanted, why)
    return "none"


def read_card(folder: Path, form: str | None) -> tuple[Json, AudioVocabulary]:
    """`distill.json` of a folder, and its vocabulary. AdapterError unless it is of this form (None:
    of either)."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        is_form, version = card["form"], card["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        ways = "give a folder that distill wrote"
        raise AdapterError(f"{folder.name}: has no readable {CARD}; {ways}") from error
    if version != 1 or form not in (None, is_form):
        is_now = f"is {is_form}, version {version}"
        raise AdapterError(
            f"{folder.name}: {is_now}, not {form or is_form}, version 1; load it as that"
        )
    return card, AudioVocabulary.from_json(json.dumps(card["vocabulary"]))
