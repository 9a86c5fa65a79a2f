"""Writes a GGUF of a LLaMA-shaped model with random weights, for measurements of speed.

The numbers mean nothing; their blocks are drawn at random with scales that keep activations in range. One random
matrix of each shape is written again for every layer, which no program can tell from different ones.

    random_gguf.py --shape 1b --format q8_0 OUT.gguf
    random_gguf.py --shape 13b --format q4_k OUT.gguf      (the head is Q6_K)
"""

import argparse

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

# hidden, layers, heads, ffn. The vocabulary of 100,278 is filled up to whole groups of 32 rows, as fast paths want it.
SHAPES = {"1b": (2048, 20, 16, 5632), "13b": (5120, 40, 40, 13824)}
VOCABULARY = 100_288
FORMATS = {"q8_0": (Type.Q8_0, Type.Q8_0), "q4_k": (Type.Q4_K, Type.Q6_K)}


def half(rng, n_blocks, scale):
    """Positive f16 scales around `scale`, as bytes of shape (block, 2)."""
    values = (scale * rng.uniform(0.5, 1.5, n_blocks)).astype("<f2")
    return values.view(np.uint8).reshape(n_blocks, 2)


def random_matrix(rng, format, n_out, n_in):
    """The bytes of a quantised matrix of shape (n_out, n_in), with numbers around zero of about 1 / sqrt(n_in)."""
    columns, n_bytes = gguf.GGML_QUANT_SIZES[format]
    n_blocks = n_out * n_in // columns
    blocks = rng.integers(0, 256, (n_blocks, n_bytes), dtype=np.uint8)
    deviation = n_in**-0.5
    if format == Type.Q8_0:
        blocks[:, :2] = half(rng, n_blocks, deviation / 74)
    elif format == Type.Q4_K:
        # scale * quant - minimum: 32 * 7.5 on average, less 32 * 7.5.
        blocks[:, 0:2] = half(rng, n_blocks, deviation / 220)
        blocks[:, 2:4] = half(rng, n_blocks, deviation / 220 * 7.5)
    else:
        blocks[:, 208:210] = half(rng, n_blocks, deviation / 1360)
    return blocks.reshape(n_out, -1)


def write(path, arch, shape, format):
    hidden, layers, heads, ffn = SHAPES[shape]
    body, head = FORMATS[format]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(8192)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("no_vocab")
    rng = np.random.default_rng(1)

    shared = {}
    def matrix(name, n_out, n_in, format):
        key = (n_out, n_in, format)
        if key not in shared:
            shared[key] = random_matrix(rng, format, n_out, n_in)
        writer.add_tensor(name, shared[key], raw_dtype=format)

    def norm(name):
        writer.add_tensor(name, np.ones(hidden, dtype=np.float32))

    matrix("token_embd.weight", VOCABULARY, hidden, body)
    for layer in range(layers):
        norm(f"blk.{layer}.attn_norm.weight")
        norm(f"blk.{layer}.ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}.weight", hidden, hidden, body)
        matrix(f"blk.{layer}.ffn_gate.weight", ffn, hidden, body)
        matrix(f"blk.{layer}.ffn_up.weight", ffn, hidden, body)
        matrix(f"blk.{layer}.ffn_down.weight", hidden, ffn, body)
    norm("output_norm.weight")
    matrix("output.weight", VOCABULARY, hidden, head)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--format", choices=FORMATS, default="q8_0")
    parser.add_argument("--arch", default="llama")
    parser.add_argument("out")
    arguments = parser.parse_args()
    write(arguments.out, arguments.arch, arguments.shape, arguments.format)


if __name__ == "__main__":
    main()
