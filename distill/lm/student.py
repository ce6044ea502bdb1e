"""The student: a stock causal LM whose two tables are grafted, and whose linear layers carry LoRA
or train in full.

    model, tokenizer = open_base("embedded/base")
    vocabulary = AudioVocabulary(rows_of(model), codec.format)
    student = graft(model, tokenizer, vocabulary, codec.codebooks(), base="embedded/base")
    student.adapt(LoraSettings(rank=32))
    hidden_BTD = student.hidden(ids_BT, positions_BT)       # packed songs do not see each other
    scores_NC = student.scores(hidden_ND, start, end)       # one slot's rows, not the whole vocabulary
    student.save_adapter(folder)                            # plain PEFT can load it

On disk an adapter is stock PEFT: linear LoRA (arXiv 2106.09685) plus the new rows in the form of
its `trainable_token_indices`, in float16 unless asked otherwise; beside it `distill.json` holds the
vocabulary and the fingerprint of the base, and `load` refuses any other base.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from distill.errors import AdapterError, GraftError, SettingsError
from distill.folders import atomic_folder, locate
from distill.lm import attention
from distill.lm.base import Quantisation, TextCoder, fingerprint, folder_of, name_of, open_base
from distill.lm.families import after_head, cache_word
from distill.lm.graft import GraftedEmbedding, GraftedHead, check_tables, first_rows, is_tied
from distill.lm.graft_checks import check_graft, text_logits
from distill.lm.vocabulary import AudioVocabulary
from distill.runtime import torchaudio_standin

torchaudio_standin.install()
from peft import LoraConfig, inject_adapter_in_model
from transformers.pytorch_utils import Conv1D

CARD = "distill.json"
WEIGHTS = "adapter_model.safetensors"
PEFT_ROOT = "base_model.model."
TOKENS = "token_adapter.trainable_tokens_delta"


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank updates of every linear layer of the body: W + alpha / rank * B A."""

    rank: int = 32
    alpha: int = 64
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1:
            raise SettingsError(f"rank is {self.rank}, alpha {self.alpha}; both must be at least 1")
        if not 0 <= self.dropout < 1:
            raise SettingsError(f"dropout is {self.dropout}; give a share from 0 up to below 1")


class Student:
    """A causal LM of transformers that also speaks an AudioVocabulary: from `graft`, `load` or
    `merge.load_merged`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        vocabulary: AudioVocabulary,
        *,
        base: str,
        base_fingerprint: str,
        base_pieces: int,
        tied: bool,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.base = base
        self.base_fingerprint = base_fingerprint
        self.tied = tied
        self.lora: LoraSettings | None = None
        self.text = TextCoder(tokenizer, base_pieces)
        self.base_pieces = base_pieces
        self.packing = "positions"
        self._finish = after_head(model.config)

    @property
    def embedding(self) -> Any:
        """The input table."""
        return self.model.get_input_embeddings()

    @property
    def head(self) -> Any:
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
        return (table.old if isinstance(table, GraftedEmbedding) else table).weight.dtype

    @property
    def longest(self) -> int:
        """Tokens that the model's positions reach."""
        return int(getattr(self.model.config, "max_position_embeddings", 1 << 30))

    # --- text -------------------------------------------------------------------------------------
    @property
    def opening(self) -> list[int]:
        """What this base puts before any text, say <s>; often nothing."""
        return list(self.text.opening)

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text, all below `vocabulary.base_rows`: no special token and no codec token,
        whatever it spells.
        """
        return self.text.encode(text)

    def decode_text(self, ids: Sequence[int]) -> str:
        """Text of ids below `vocabulary.base_rows`."""
        return self.text.decode(list(ids))

    # --- forward ----------------------------------------------------------------------------------
    def hidden(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        cache: Any = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states hidden_BTD, after the final norm. `cache` (a transformers Cache) is
        extended in place.

        Without a cache and a mask, `positions_BT` that start again in a row begin another song,
        which does not see the ones before it. Raises GraftError where the family cannot keep songs
        apart.
        """
        body = self.model.base_model
        options: dict[str, Any] = {"use_cache": cache is not None, cache_word(type(body)): cache}
        packing = self.packing
        if packing == "songs" and any(
            getattr(m, "gradient_checkpointing", False) for m in self.model.modules()
        ):
            packing = "mask"  # layers run again in the backward pass, when `apart` is over
        if positions_BT is not None:
            options["position_ids"] = positions_BT
            if cache is None and attention_mask is None and packing in ("mask", "none"):
                attention_mask = self._songs_apart(positions_BT)
        if attention_mask is not None:
            options["attention_mask"] = attention_mask
        # use_cache=False matters: with a cache of its own transformers no longer looks for packed
        # songs
        if (
            packing == "songs"
            and positions_BT is not None
            and cache is None
            and attention_mask is None
        ):
            with attention.apart(self.model.config, positions_BT):
                return body(input_ids=ids_BT, **options).last_hidden_state
        return body(input_ids=ids_BT, **options).last_hidden_state

    def _songs_apart(self, positions_BT: Tensor) -> Tensor | None:
        starts_BT = attention.song_starts(positions_BT)
        if not bool(starts_BT[:, 1:].any()):
            return None
        if self.packing == "none":
            raise GraftError(
                f"{self.base}: this family cannot keep packed songs apart; put one song in a row"
            )
        return _block_mask(starts_BT.cumsum(-1), self.dtype)

    def logits(self, hidden_ND: Tensor, start: int, end: int) -> Tensor:
        """Logits for rows start ... end-1 of the joint vocabulary, as the stock model gives them
        (scaled, capped).
        """
        if not 0 <= start < end <= self.vocabulary.rows:
            raise GraftError(
                f"rows {start} to {end}: this model has 0 to {self.vocabulary.rows}; ask within "
                "them"
            )
        head = self.head
        if isinstance(head, GraftedHead):
            return self._finish(head.span(hidden_ND, start, end))
        return self._finish(F.linear(hidden_ND, head.weight[start:end]))

    # --- what trains ------------------------------------------------------------------------------
    def adapt(self, settings: LoraSettings, seed: int = 0) -> None:
        """LoRA on every linear layer of the body; those and the new rows train, all else is frozen."""
        if self.lora is not None:
            raise GraftError(f"{self.base}: has LoRA already; adapt a fresh graft")
        self._need_graft()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(self._lora_config(settings), self.model)
        self.lora = settings
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(".lora_" in name)
            if ".lora_" in name:
                # float32 to train, whatever the base is held in
                parameter.data = parameter.data.float()
        for parameter in self.new_rows().values():
            parameter.requires_grad_(True)

    def train_all(self, old_rows: bool = True) -> None:
        """Everything trains; with `old_rows=False` all but the base's own rows of the two tables."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        if not old_rows:
            self._need_graft()
            self.embedding.old.weight.requires_grad_(False)
            self.head.old.weight.requires_grad_(False)

    def new_rows(self) -> dict[str, nn.Parameter]:
        """The new rows by parameter name: one table where the base ties its head, else two."""
        self._need_graft()
        tables = {
            name_of(self.model, table) + ".new": table.new for table in (self.embedding, self.head)
        }
        return dict(list(tables.items())[:1]) if self.tied else tables

    def _need_graft(self) -> None:
        if not isinstance(self.head, GraftedHead):
            raise GraftError(
                f"{self.base}: is merged, its tables are one; graft its base instead, or train "
                "all of it"
            )

    def _lora_config(self, settings: LoraSettings, **more: Any) -> LoraConfig:
        linear = {
            name.removesuffix(".base_layer").rpartition(".")[2]
            for name, module in self.model.base_model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and ".lora_" not in name
        }
        if not linear:
            raise GraftError(
                f"{self.base}: its body has no linear layers for LoRA; train all of it"
            )
        return LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=sorted(linear),
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in self.model.modules()),
            task_type="CAUSAL_LM",
            **more,
        )

    def trainable(self) -> dict[str, nn.Parameter]:
        """What trains, by name; a shared parameter once."""
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }

    def state(self) -> dict[str, Tensor]:
        """The trained weights, as they are: what a checkpoint stores."""
        return {name: parameter.detach() for name, parameter in self.trainable().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` gave. Raises AdapterError unless names and shapes are the same."""
        mine = self.trainable()
        wrong = sorted(mine.keys() ^ state.keys()) or sorted(
            n for n in mine if mine[n].shape != state[n].shape
        )
        if wrong:
            raise AdapterError(
                f"{wrong[0]} and {len(wrong) - 1} more: model and state differ; use the same recipe"
            )
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(state[name])

    def to(self, device: torch.device | str) -> Student:
        """Moves the model."""
        self.model.to(device)
        return self

    # --- on disk ----------------------------------------------------------------------------------
    def card(self, form: str) -> dict[str, Any]:
        """What `distill.json` says: whose adapter this is, and how its ids are laid out."""
        return {
            "version": 1,
            "form": form,
            "base": self.base,
            "base_fingerprint": self.base_fingerprint,
            "base_pieces": self.base_pieces,
            "vocabulary": json.loads(self.vocabulary.to_json()),
            "lora": asdict(self.lora) if self.lora else None,
        }

    def save_adapter(self, folder: str | Path, dtype: str = "float16") -> Path:
        """Writes a stock PEFT adapter (and `distill.json`), at once or not at all; gives the
        folder.

        Plain PEFT: load the base, `resize_token_embeddings(vocabulary.rows)`,
        `PeftModel.from_pretrained`. Raises AdapterError for a student without LoRA (merge it
        instead) and for weights that `dtype` cannot hold.
        """
        if self.lora is None:
            raise AdapterError(
                f"{self.base}: was trained in full, which no adapter can hold; write it with merge"
            )
        kind = getattr(torch, dtype)
        names = self._names_on_disk()
        state = {
            names[name]: tensor.to(kind).cpu().contiguous() for name, tensor in self.state().items()
        }
        for name, tensor in state.items():
            if not bool(torch.isfinite(tensor).all()):
                raise AdapterError(f"{name}: has values that {dtype} cannot hold; save in float32")
        new_ids = list(range(self.vocabulary.base_rows, self.vocabulary.rows))
        tables = [name.rpartition(".")[0].rpartition(".")[2] for name in self.new_rows()]
        config = self._lora_config(
            self.lora,
            inference_mode=True,
            base_model_name_or_path=self.base,
            trainable_token_indices={table: new_ids for table in tables},
        )
        with atomic_folder(folder) as inside:
            config.save_pretrained(str(inside))
            save_file(
                state,
                inside / WEIGHTS,
                metadata={"format": "pt", "base_fingerprint": self.base_fingerprint},
            )
            (inside / CARD).write_text(json.dumps(self.card("adapter"), indent=1) + "\n")
        return Path(folder)

    def _names_on_disk(self) -> dict[str, str]:
        """Our parameter names -> PEFT's keys."""
        names = {name: PEFT_ROOT + name.replace(".default.", ".") for name in self.trainable()}
        names.update(
            {name: f"{PEFT_ROOT}{name.removesuffix('.new')}.{TOKENS}" for name in self.new_rows()}
        )
        return names


def rows_of(model: Any) -> int:
    """Rows of a base's tables: where its new ids begin. Often more than its tokenizer has pieces."""
    return int(model.get_input_embeddings().weight.shape[0])


def graft(
    model: Any,
    tokenizer: Any,
    vocabulary: AudioVocabulary,
    codebooks: Sequence[Tensor] | None = None,
    seed: int = 0,
    init: str = "codebooks",
    base: str | None = None,
) -> Student:
    """Puts the vocabulary's new rows beside the model's own, in place, and gives the student;
    nothing trains yet.

    `init` as in `graft.first_rows`; `base`: the name by which others find this base (recorded in
    adapters). Before it returns it measures, on a few ids: text logits bit-identical to the model's
    before, `logits` equal to the stock forward's logits, and how songs in one row are kept apart.
    Raises GraftError where one of the first two fails.
    """
    where = base or _public_name(model)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    check_tables(embedding, head, where)
    pieces = 1 + max(tokenizer.get_vocab().values())
    rows = embedding.num_embeddings
    if vocabulary.base_rows != rows:
        raise GraftError(
            f"{where}: has {rows} rows, the vocabulary begins at {vocabulary.base_rows}; use "
            "rows_of"
        )
    if pieces > rows:
        raise GraftError(
            f"{where}: its tokenizer has {pieces} ids, its tables {rows} rows; use its own "
            "tokenizer"
        )
    before_BTV = text_logits(model, vocabulary.base_rows)
    tied = is_tied(model)
    identity = fingerprint(model, tokenizer, folder_of(model))
    device = embedding.weight.device
    new = nn.Parameter(
        first_rows(embedding.weight[:pieces], vocabulary, codebooks, seed, init).to(device)
    )
    if tied:
        new_head = new
    else:
        rows_ND = first_rows(head.weight[:pieces], vocabulary, codebooks, seed + 1, init)
        new_head = nn.Parameter(rows_ND.to(device))
    model.set_input_embeddings(GraftedEmbedding(embedding, new))
    model.set_output_embeddings(GraftedHead(head, new_head))
    model.config.vocab_size = model.vocab_size = vocabulary.rows
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    student = Student(
        model,
        tokenizer,
        vocabulary,
        base=where,
        base_fingerprint=identity,
        base_pieces=pieces,
        tied=tied,
    )
    check_graft(student, before_BTV)
    return student


def load(
    base: str | Path, adapter: str | Path, dtype: str = "float32", quantise: Quantisation = "none"
) -> Student:
    """A student from a base and an adapter that `save_adapter` wrote, ready to sing or to train on.

    Raises AdapterError when the adapter was made for another base, even one of the same shape.
    """
    folder = locate(str(adapter))
    card = read_card(folder, "adapter")
    model, tokenizer = open_base(base, dtype, quantise)
    identity = fingerprint(model, tokenizer, folder_of(model))
    if identity != card["base_fingerprint"]:
        raise AdapterError(
            f"{folder.name}: was made for base {card['base']} ({card['base_fingerprint'][:12]}), "
            f"not for {Path(base).name} ({identity[:12]}); give that base"
        )
    vocabulary = AudioVocabulary.from_json(json.dumps(card["vocabulary"]))
    student = graft(model, tokenizer, vocabulary, init="gaussian", base=card["base"])
    student.adapt(LoraSettings(**card["lora"]))
    ours = {theirs: name for name, theirs in student._names_on_disk().items()}
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"{folder.name}: {WEIGHTS} cannot be read ({error}); fetch or save it again"
        ) from error
    student.load_state({ours.get(name, name): tensor for name, tensor in state.items()})
    return student


def read_card(folder: Path, form: str) -> dict[str, Any]:
    """`distill.json` of a folder. Raises AdapterError when there is none, or it is of another form
    or version.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        found, version = card["form"], card["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(
            f"{folder.name}: has no readable {CARD}; give a folder that distill wrote"
        ) from error
    if version != 1 or found != form:
        raise AdapterError(
            f"{folder.name}: is {found}, version {version}, not {form}, version 1; load it as that"
        )
    return card


def _block_mask(song_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive mask (B, 1, T, T): a token sees itself and what stands before it in the same song."""
    length = song_BT.shape[1]
    causal_TT = torch.ones(length, length, dtype=torch.bool, device=song_BT.device).tril()
    seen_BTT = (song_BT[:, :, None] == song_BT[:, None, :]) & causal_TT
    hidden_from = torch.zeros(seen_BTT.shape, dtype=dtype, device=song_BT.device)
    return hidden_from.masked_fill(~seen_BTT, torch.finfo(dtype).min)[:, None]


def _public_name(model: Any) -> str:
    """A name for the base that means something elsewhere: a hub id, or the last part of a path."""
    name = str(getattr(model, "name_or_path", "") or model.config.model_type)
    return Path(name).name if Path(name).is_absolute() else name
