"""Random weights of XVERSE's shapes: as a checkpoint that the program reads, and as a model of Hugging Face transformers."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SHAPES = {
    "13b": dict(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40, vocab_size=100_278),
    "1b": dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=20, num_attention_heads=16, vocab_size=100_278),
    "tiny": dict(hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, vocab_size=2048),
}
CONTEXT = 8192
STANDARD_DEVIATION = 0.02
# A head of random weights gives flat logits, whose order says nothing.
HEAD_DEVIATION = 8 * STANDARD_DEVIATION


def config(shape):
    return {
        "architectures": ["XverseForCausalLM"],
        "model_type": "xverse",
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-6,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **SHAPES[shape],
    }


def parts(shape):
    """Name and tensors of each file."""
    sizes = SHAPES[shape]
    hidden, ffn, vocabulary = sizes["hidden_size"], sizes["intermediate_size"], sizes["vocab_size"]
    generator = torch.Generator().manual_seed(1)

    def normal(*size, deviation=STANDARD_DEVIATION):
        return (torch.randn(*size, generator=generator) * deviation).to(torch.bfloat16)

    yield "outside.safetensors", {
        "model.embed_tokens.weight": normal(vocabulary, hidden),
        "model.norm.weight": 1 + normal(hidden),
        "lm_head.weight": normal(vocabulary, hidden, deviation=HEAD_DEVIATION),
    }
    projections = {f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
    projections |= {"mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden), "mlp.down_proj": (hidden, ffn)}
    # Three layers that differ and follow each other again and again: making forty would take longer than using them.
    made = []
    for layer in range(sizes["num_hidden_layers"]):
        if layer < 3:
            tensors = {f"{name}.weight": normal(*size) for name, size in projections.items()}
            made.append(tensors | {f"{name}_layernorm.weight": 1 + normal(hidden) for name in ("input", "post_attention")})
        yield f"layer-{layer:02}.safetensors", {f"model.layers.{layer}.{name}": of for name, of in made[layer % 3].items()}


def tokenizer(vocabulary):
    """The mini model's, with tokens that no text has up to the vocabulary."""
    mini = Path(__file__).resolve().parents[2] / "models" / "xverse-mini" / "tokenizer.json"
    made = json.loads(mini.read_text(encoding="utf-8"))
    ids = made["model"]["vocab"]
    for token_id in range(max(ids.values()) + 1, vocabulary):
        ids[f"<nothing {token_id}>"] = token_id
    return made


def write_checkpoint(folder: Path, shape):
    """The folder, whole; one whose index is there is taken as it is."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    for file, tensors in parts(shape):
        save_file(tensors, folder / file)
        weight_map |= dict.fromkeys(tensors, file)
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(SHAPES[shape]["vocab_size"])))
    index.write_text(json.dumps({"weight_map": weight_map}))
    return folder


def load_transformers(folder: Path, shape, dtype, device):
    """transformers' Llama with the checkpoint's weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    fields = {key: value for key, value in config(shape).items() if key not in ("architectures", "model_type", "torch_dtype")}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**fields, attn_implementation="sdpa")).to(dtype)
    model.to_empty(device=device)
    for file in sorted(folder.glob("*.safetensors")):
        model.load_state_dict(load_file(file), strict=False)
    # What is computed from the configuration and lies in no file.
    rotary = model.model.rotary_emb
    head = fields["hidden_size"] // fields["num_attention_heads"]
    rotary.inv_freq = (1.0 / (10_000.0 ** (torch.arange(0, head, 2).float() / head))).to(device)
    rotary.original_inv_freq = rotary.inv_freq
    return model.eval()
