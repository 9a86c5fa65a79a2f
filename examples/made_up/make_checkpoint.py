"""Writes a checkpoint of random weights as XVERSE publishes its own: pickled .bin shards in bfloat16 with their index.

For measuring loading, memory and speed without the real weights: the shapes are right, one random layer is repeated, and
what such a model says means nothing. The tokenizer is the mini model's, filled up to the vocabulary.

    python examples/made_up/make_checkpoint.py FOLDER --shape 13b
"""

import argparse
import json
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "models" / "xverse-mini"
SHAPES = {
    "13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 20, "num_attention_heads": 16},
}
VOCAB_SIZE = 100_278
N_SHARDS = 10
STANDARD_DEVIATION = 0.02


def config(shape: str) -> dict:
    return {
        "architectures": ["XverseForCausalLM"],
        "model_type": "xverse",
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": VOCAB_SIZE,
        **SHAPES[shape],
    }


def tokenizer() -> dict:
    """The mini model's, with tokens that no text has up to the vocabulary."""
    made = json.loads((MINI / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = made["model"]["vocab"]
    for token_id in range(max(vocabulary.values()) + 1, VOCAB_SIZE):
        vocabulary[f"<nothing {token_id}>"] = token_id
    return made


def normal(*shape: int) -> torch.Tensor:
    return (torch.randn(*shape) * STANDARD_DEVIATION).to(torch.bfloat16)


def layer(shape: dict) -> dict[str, torch.Tensor]:
    hidden, ffn = shape["hidden_size"], shape["intermediate_size"]
    frequencies = 1.0 / (10_000.0 ** (torch.arange(0, 128, 2).float() / 128))
    return {
        **{f"self_attn.{name}_proj.weight": normal(hidden, hidden) for name in ("q", "k", "v", "o")},
        # The original model code keeps it among the weights.
        "self_attn.rotary_emb.inv_freq": frequencies,
        "mlp.gate_proj.weight": normal(ffn, hidden),
        "mlp.up_proj.weight": normal(ffn, hidden),
        "mlp.down_proj.weight": normal(hidden, ffn),
        "input_layernorm.weight": torch.ones(hidden, dtype=torch.bfloat16),
        "post_attention_layernorm.weight": torch.ones(hidden, dtype=torch.bfloat16),
    }


def shards(shape: dict):
    """The tensors of one shard after the other, each with storage of its own."""
    n_layers, repeated = shape["num_hidden_layers"], layer(shape)
    table = (VOCAB_SIZE, shape["hidden_size"])
    for shard in range(N_SHARDS):
        tensors = {}
        if shard == 0:
            tensors["model.embed_tokens.weight"] = normal(*table)
        for index in range(shard * n_layers // N_SHARDS, (shard + 1) * n_layers // N_SHARDS):
            tensors |= {f"model.layers.{index}.{name}": tensor.clone() for name, tensor in repeated.items()}
        if shard == N_SHARDS - 1:
            tensors["model.norm.weight"] = torch.ones(shape["hidden_size"], dtype=torch.bfloat16)
            tensors["lm_head.weight"] = normal(*table)
        yield tensors


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--shape", choices=SHAPES, default="13b")
    chosen = arguments.parse_args()
    torch.manual_seed(0)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    weight_map, total = {}, 0
    for number, tensors in enumerate(shards(SHAPES[chosen.shape]), start=1):
        name = f"pytorch_model-{number:05}-of-{N_SHARDS:05}.bin"
        torch.save(tensors, chosen.folder / name)
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        print(name, f"{total / 1e9:.2f} GB so far", flush=True)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    files = {
        "pytorch_model.bin.index.json": index,
        "config.json": config(chosen.shape),
        "generation_config.json": json.loads((MINI / "generation_config.json").read_text(encoding="utf-8")),
        "tokenizer.json": tokenizer(),
    }
    for name, content in files.items():
        (chosen.folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
