"""A decoder of the same shape in plain torch, made for `torch.compile`: the strongest peer for one sequence.

In the style of gpt-fast: fused projections, a static cache, one token a call, everything compiled into one graph.
"""

import time

import torch
from torch import nn
from torch.nn import functional

from model import SHAPES

CACHE = 512


class Layer(nn.Module):
    def __init__(self, hidden, ffn, heads):
        super().__init__()
        self.heads, self.head = heads, hidden // heads
        self.input_norm, self.post_norm = nn.RMSNorm(hidden, eps=1e-6), nn.RMSNorm(hidden, eps=1e-6)
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.output = nn.Linear(hidden, hidden, bias=False)
        self.gate_up = nn.Linear(hidden, 2 * ffn, bias=False)
        self.down = nn.Linear(ffn, hidden, bias=False)
        self.register_buffer("keys", torch.zeros(1, heads, CACHE, self.head))
        self.register_buffer("values", torch.zeros(1, heads, CACHE, self.head))

    def forward(self, x, cosine, sine, position, mask):
        query, key, value = self.qkv(self.input_norm(x)).view(1, 1, 3, self.heads, self.head).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))

        def turned(part):
            first, second = part.chunk(2, dim=-1)
            return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).to(part.dtype)

        self.keys.index_copy_(2, position, turned(key))
        self.values.index_copy_(2, position, value)
        attended = functional.scaled_dot_product_attention(turned(query), self.keys, self.values, attn_mask=mask)
        x = x + self.output(attended.transpose(1, 2).reshape(1, 1, -1))
        gate, up = self.gate_up(self.post_norm(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


class Decoder(nn.Module):
    def __init__(self, shape):
        super().__init__()
        sizes = SHAPES[shape]
        hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
        self.embedding = nn.Embedding(sizes["vocab_size"], hidden)
        layers = range(sizes["num_hidden_layers"])
        self.layers = nn.ModuleList(Layer(hidden, sizes["intermediate_size"], heads) for _ in layers)
        self.norm = nn.RMSNorm(hidden, eps=1e-6)
        self.lm_head = nn.Linear(hidden, sizes["vocab_size"], bias=False)
        head = hidden // heads
        frequencies = 1.0 / (10_000.0 ** (torch.arange(0, head, 2).float() / head))
        angles = torch.arange(CACHE).float()[:, None] * frequencies
        self.register_buffer("cosines", angles.cos())
        self.register_buffer("sines", angles.sin())

    def forward(self, token, position):
        x = self.embedding(token).view(1, 1, -1)
        mask = (torch.arange(CACHE, device=x.device) <= position)[None, None, None]
        cosine, sine = self.cosines[position], self.sines[position]
        for layer in self.layers:
            x = layer(x, cosine, sine, position, mask)
        return self.lm_head(self.norm(x)).view(1, -1).argmax(-1)


def compiled_decoder_speed(shape, device, n_tokens):
    """Tokens a second of greedy decoding, the best of three runs after one to warm up."""
    with torch.device("meta"):
        decoder = Decoder(shape)
    decoder = decoder.to(torch.bfloat16).to_empty(device=device).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(0, 0.02)
        for buffer in decoder.buffers():
            buffer.zero_()
    step = torch.compile(decoder, mode="reduce-overhead", fullgraph=True)
    best = 0.0
    with torch.inference_mode():
        for _ in range(4):
            token, began = torch.tensor([5], device=device), time.monotonic()
            for at in range(n_tokens):
                token = step(token, torch.tensor([at], device=device)).clone()
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, n_tokens / (time.monotonic() - began))
    return {"tok_s": best}
