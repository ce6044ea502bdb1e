"""Tiny random LLMs of every family with a byte-level tokenizer, to test the graft on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from distill.audio.codec_format import CodecFormat
from distill.runtime import torchaudio_standin
from distill.writing.vocabulary import AudioVocabulary

torchaudio_standin.install()
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast

from distill.lm.families import opener

ROWS = 300  # more than the tokenizer's pieces, and not a multiple of 64: both happen to real bases
CODES = (40, 24)
WINDOW = 8  # tokens that a layer looks back, where a family has windows
SHAPE = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
Own = dict[str, Any]
GROUPED: Own = {"num_key_value_heads": 2}
HEADS = GROUPED | {"head_dim": 8}
SLIDING: Own = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS: Own = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL: Own = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED: Own = {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}
ROUTED |= {"moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
LATENT: Own = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16}
LATENT |= {"qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
DELTA: Own = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8}
DELTA |= {"linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}
MAMBA: Own = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
MAMBA |= {"mamba_chunk_size": 8, "mamba_expand": 2}
SHORT_CONV: Own = {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}
GEMMA = HEADS | SLIDING | {"query_pre_attn_scalar": 8}
PER_LAYER: Own = {"hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0}
EYE: Own = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
EYE |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
MPT: Own = {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128, "expansion_ratio": 2}
XGLM: Own = {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4}
GRANITE: Own = {"logits_scaling": 3.0, "embedding_multiplier": 4.0, "residual_multiplier": 0.5}

# a family's own settings beside SHAPE, by its name in transformers (behind "/": which variant)
FAMILIES: dict[str, Own] = {
    "apertus": GROUPED,
    "arcee": GROUPED,
    "bamba": GROUPED | MAMBA | {"attn_layer_indices": [1]},
    "biogpt": {},
    "bitnet": GROUPED,
    "bloom": {},
    "cohere": GROUPED | {"logit_scale": 0.3},
    "cohere2": HEADS | SLIDING | {"logit_scale": 0.3},
    "deepseek_v2": LATENT | ROUTED,
    "deepseek_v3": LATENT | ROUTED,
    "ernie4_5": GROUPED,
    "exaone4": GROUPED | SLIDING,
    "falcon": {"new_decoder_architecture": False},
    "falcon_h1": GROUPED | MAMBA | {"mamba_d_ssm": 64, "lm_head_multiplier": 0.5},
    "gemma": HEADS,
    "gemma2": GEMMA | {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 2.0},
    "gemma3": {"text": "gemma3_text", "eye": EYE},
    "gemma3_text": GEMMA,
    "gemma4": {"text": "gemma4_text", "eye": EYE | HEADS},
    "gemma4_text": HEADS | SLIDING | {"global_head_dim": 8, "hidden_size_per_layer_input": 0},
    "glm4": HEADS,
    "glm4_moe": HEADS | EXPERTS | ROUTED,
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
    "gpt_neox": {},
    "gpt_oss": HEADS | SLIDING | LOCAL,
    "granite": GROUPED | GRANITE,
    "granitemoe": GROUPED | GRANITE | LOCAL,
    "granitemoehybrid": GROUPED | MAMBA | LOCAL | {"layer_types": ["mamba", "attention"]},
    "helium": HEADS,
    "hunyuan_v1_dense": HEADS,
    "lfm2": GROUPED | SHORT_CONV,
    "lfm2_moe": GROUPED | SHORT_CONV | EXPERTS | {"num_dense_layers": 1},
    "llama": GROUPED,
    "llama4_text": HEADS | LOCAL | {"intermediate_size_mlp": 64, "attention_chunk_size": WINDOW},
    "mamba2": {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8},
    "minimax_m2": HEADS | LOCAL,
    "ministral3": HEADS,
    "mistral": HEADS,
    "mistral/window": HEADS | {"sliding_window": WINDOW},
    "mistral3": {"text": "mistral", "eye": EYE | {"head_dim": 8}},
    "mixtral": HEADS | LOCAL,
    "mpt": MPT,
    "nemotron": HEADS,
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "olmo3": GROUPED | SLIDING,
    "olmo_hybrid": GROUPED | DELTA,
    "olmoe": GROUPED | EXPERTS,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "phi3": GROUPED,
    "phi3/window": GROUPED | {"sliding_window": WINDOW},
    "qwen2": GROUPED,
    "qwen2/window": GROUPED
    | {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    "qwen2_moe": GROUPED | EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3": HEADS,
    "qwen3_5_text": HEADS | DELTA,
    "qwen3_moe": HEADS | EXPERTS,
    "qwen3_next": HEADS | DELTA | EXPERTS | {"shared_expert_intermediate_size": 16},
    "seed_oss": HEADS,
    "smollm3": GROUPED,
    "stablelm": GROUPED,
    "starcoder2": GROUPED,
    "starcoder2/window": GROUPED | {"sliding_window": WINDOW},
    "xglm": XGLM,
}
CASES = [(family, tied) for family in FAMILIES for tied in (True, False)]
# what `make test` takes of them: the families that people bring, once each, the head tied in every
# second, and the commonest both ways; `make test-all` takes all
BOTH = {"gemma", "gpt_neox", "llama", "qwen2", "qwen3"}
USUAL = BOTH | {
    "cohere", "deepseek_v3", "falcon", "gemma2", "gemma3", "gemma3_text", "glm4", "gpt2", "gpt_oss",
    "granite", "granitemoehybrid", "lfm2", "mistral", "mistral3", "mixtral", "olmo2", "phi3",
    "qwen3_moe", "qwen3_next", "smollm3", "stablelm", "starcoder2",
}  # fmt: skip
QUICK_CASES = [
    (family, tied)
    for number, family in enumerate(FAMILIES)
    for tied in (True, False)
    if family in BOTH or (family in USUAL and tied is bool(number % 2))
]
# families that a graft refuses, and the words by which it does
REFUSED: dict[str, tuple[Own, str]] = {
    "codegen": ({"rotary_dim": 4}, "head has a bias"),
    "falcon_mamba": ({"state_size": 8}, "could not sing"),
    "gemma3n_text": (GEMMA | PER_LAYER, "per-layer embeddings"),
    "gemma4_text": (FAMILIES["gemma4_text"] | PER_LAYER, "per-layer embeddings"),
    "gptj": ({"rotary_dim": 4}, "head has a bias"),
    "jamba": (GROUPED | {"mamba_d_state": 8, "use_mamba_kernels": False}, "could not sing"),
    "mamba": ({"state_size": 8}, "could not sing"),
    "minimax": (HEADS | LOCAL | {"layer_types": DELTA["layer_types"]}, "could not sing"),
    "phi": (GROUPED, "head has a bias"),
    "phimoe": (GROUPED | LOCAL | {"lm_head_bias": True}, "head has a bias"),
    "recurrent_gemma": (GROUPED | {"attention_window_size": 8, "lru_width": 32}, "could not sing"),
    "rwkv": ({"attention_hidden_size": 32}, "could not sing"),
    "xlstm": ({}, "could not sing"),
}


def tokenizer() -> Any:
    """Byte-level BPE with <s> and </s>."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(["row row row your boat gently down the stream"] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<s>"
    )


def config(family: str = "llama", tied: bool = False, **more: Any) -> Any:
    """Of a tiny model of a family; `more` goes to its language model."""
    own = FAMILIES[family]
    if "text" in own:
        text = config(own["text"], tied, **more)
        settings = {"text_config": text, "vision_config": own["eye"]}
    else:
        settings = SHAPE | own | more
    return CONFIG_MAPPING[family.partition("/")[0]](**settings | {"tie_word_embeddings": tied})


def refused(family: str) -> Any:
    """The config of one of the families that a graft refuses."""
    return CONFIG_MAPPING[family](**SHAPE | REFUSED[family][0])


def build(settings: Any, seed: int = 0) -> Any:
    """A random causal LM of a config, in float32."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return opener(settings).from_config(settings).eval()


def write(folder: Path, settings: Any, seed: int = 0) -> Path:
    """The same, as a folder that transformers loads."""
    build(settings, seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def vocabulary(rows: int = ROWS) -> AudioVocabulary:
    return AudioVocabulary(
        rows, CodecFormat(16_000, 25.0, CODES), lowest_midi=45, highest_midi=72, longest=16
    )


def codebooks() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(codes, 6, generator=generator) for codes in CODES]


def disturb(student: Any, amount: float = 0.05) -> None:
    """Stands in for training: moves everything that trains."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in student.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * amount)
