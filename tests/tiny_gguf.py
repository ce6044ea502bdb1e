"""A tiny Llama written as a GGUF file, as llama.cpp's converter writes one, and its faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tiny_bases

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def write(
    path: Path,
    model: Any = None,
    architecture: str = "llama",
    tokenizer: str | None = "gpt2",
    left_out: str = "",
) -> Path:
    """A GGUF of a tiny Llama in float32; `tokenizer` None: without one; `left_out`: a tensor."""
    model = model or tiny_bases.build(tiny_bases.config(vocab_size=280))
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if tokenizer is not None:
        _add_tokenizer(writer, tokenizer)
    for name, tensor in model.state_dict().items():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        stored = _stored_name(name)
        if stored != left_out:
            writer.add_tensor(stored, _as_stored(name, tensor.numpy(), config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, kind: str) -> None:
    plan = json.loads(tiny_bases.tokenizer().backend_tokenizer.to_str())
    pieces = sorted(plan["model"]["vocab"], key=plan["model"]["vocab"].get)
    control = {token["content"] for token in plan["added_tokens"]}
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_types([3 if piece in control else 1 for piece in pieces])
    merges = plan["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def _stored_name(name: str) -> str:
    stem, _, leaf = name.rpartition(".")
    if stem.startswith("model.layers."):
        number, _, part = stem.removeprefix("model.layers.").partition(".")
        return f"blk.{number}.{NAMES[part]}.{leaf}"
    return f"{NAMES[stem]}.{leaf}"


def _as_stored(name: str, weight_OI: np.ndarray, config: Any) -> np.ndarray:
    """llama.cpp turns pairs of a head's dimensions that lie apart into neighbours."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((heads[part] for part in heads if part in name), None)
    if count is None:
        return weight_OI
    halves = weight_OI.reshape(count, 2, -1, weight_OI.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight_OI.shape))


def truncate(path: Path, share: float) -> Path:
    """Keeps the first part of a file."""
    content = path.read_bytes()
    path.unlink()  # a new file: somebody may have the old one mapped
    path.write_bytes(content[: int(len(content) * share)])
    return path


def of_unknown_quantisation(path: Path) -> Path:
    """Gives the file's first tensor a type that nobody knows."""
    name = b"token_embd.weight"
    content = bytearray(path.read_bytes())
    # behind a tensor's name: 4 bytes for its axes, 8 for each of two, then 4 for its type
    at = content.index(name) + len(name) + 4 + 2 * 8
    content[at : at + 4] = (977).to_bytes(4, "little")
    path.write_bytes(content)
    return path
