"""Logits and greedy answers of random XVERSE checkpoints, computed by transformers' LlamaForCausalLM in float32.

Owns the configurations, their weights' scales and what is recorded of them. The scales make attention scores and logits
spread by at least 1 (checked), because a model whose softmax is nearly flat hides most mistakes; the residual stream is kept
near 0.01, because that is where a wrong epsilon shows.
"""

import math
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

import generator

PROMPT_LENGTHS = [1, 2, 15, 16, 17, 33, 128, 300]
GREEDY_TOKENS = 64
LEAST_MARGIN = 2e-3
LEAST_DISTINCT = 12


@dataclass
class Shape:
    """One configuration; all but the last two fields are keys of config.json."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int = 512
    seed: int = 1
    every_position: list[int] = field(default_factory=list)  # prompt lengths of which all positions are stored


SHAPES = [
    Shape("small", 64, 172, 2, 4, 4, 700, 1e-6, 10000.0, seed=11, every_position=[17, 33]),
    Shape("odd", 96, 250, 3, 3, 3, 1003, 1e-5, 10000.0, seed=12),
    Shape("wide", 256, 688, 4, 2, 2, 1536, 1e-6, 10000.0, seed=13),
    Shape("deep", 128, 345, 8, 2, 2, 811, 1e-6, 10000.0, seed=14),
    Shape("grouped", 160, 433, 2, 10, 2, 777, 1e-6, 20000.0, seed=15),
]


def scales(shape: Shape) -> dict[str, list[float]]:
    """[offset, scale] for each kind of tensor; a uniform number in [-1, 1) has variance 1/3."""
    of_input = math.sqrt(3 / shape.hidden_size)
    of_ffn = math.sqrt(3 / shape.intermediate_size)
    spread = {
        "embed_tokens": 0.02,
        "q_proj": 1.1 * of_input,
        "k_proj": 1.1 * of_input,
        "v_proj": 1.0 * of_input,
        "o_proj": 0.02 * of_input,
        "gate_proj": 1.2 * of_input,
        "up_proj": 1.2 * of_input,
        "down_proj": 0.012 * of_ffn,
        "lm_head": 1.1 * of_input,
    }
    table = {kind: [0.0, generator.dyadic(scale)] for kind, scale in spread.items()}
    table["norm"] = [1.0, 0.25]
    return table


def kind_of(name: str) -> str:
    """`model.layers.0.self_attn.q_proj.weight` -> `q_proj`; every norm is `norm`."""
    last = name.split(".")[-2]
    return "norm" if last.endswith("norm") else last


def model_of(shape: Shape) -> LlamaForCausalLM:
    """The model with generated weights."""
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        max_position_embeddings=shape.max_position_embeddings,
        rms_norm_eps=shape.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=False,
        attention_bias=False,
        mlp_bias=False,
        hidden_act="silu",
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=3,
        attn_implementation="eager",
        dtype="float32",
    )
    model = LlamaForCausalLM(config).eval()
    table = scales(shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            offset, scale = table[kind_of(name)]
            values = generator.weights(shape.seed, name, parameter.numel(), offset, scale)
            parameter.copy_(torch.from_numpy(values).reshape(parameter.shape))
    inv_freq = model.model.rotary_emb.inv_freq
    assert abs(float(inv_freq[1]) - shape.rope_theta ** (-2 / (shape.hidden_size // shape.num_attention_heads))) < 1e-6
    assert model.model.norm.variance_epsilon == shape.rms_norm_eps
    return model


class ScoreSpread:
    """Standard deviation of the attention scores before the softmax, per layer, while it is entered."""

    def __enter__(self):
        self.layers: dict[int, list[torch.Tensor]] = {}
        self.original = modeling_llama.eager_attention_forward

        def recording(module, query, key, value, attention_mask, scaling, **rest):
            keys = modeling_llama.repeat_kv(key, module.num_key_value_groups)
            scores = torch.matmul(query, keys.transpose(2, 3)) * scaling
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
            self.layers.setdefault(module.layer_idx, []).append(scores[:, :, seen].flatten())
            return self.original(module, query, key, value, attention_mask, scaling, **rest)

        modeling_llama.eager_attention_forward = recording
        return self

    def __exit__(self, *_):
        modeling_llama.eager_attention_forward = self.original

    def deviations(self) -> list[float]:
        return [float(torch.cat(self.layers[idx]).std()) for idx in sorted(self.layers)]


def greedy(model, prompt: list[int]) -> tuple[list[int], float]:
    """The likeliest tokens one after another, and the smallest lead of the likeliest over the next."""
    answer, least = [], math.inf
    step, cache = torch.tensor([prompt]), None
    for _ in range(GREEDY_TOKENS):
        output = model(step, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        top = torch.topk(output.logits[0, -1], 2)
        least = min(least, float(top.values[0] - top.values[1]))
        answer.append(int(top.indices[0]))
        step = torch.tensor([answer[-1:]])
    return answer, least


def prompt_with_clear_answer(model, shape: Shape, length: int) -> tuple[int, list[int], list[int], float]:
    """The first generated prompt whose greedy answer is neither a near tie anywhere nor a short loop."""
    for attempt in range(1000):
        prompt = generator.ids(shape.seed, f"{shape.name}.prompt.{length}.{attempt}", length, shape.vocab_size)
        answer, margin = greedy(model, prompt)
        if margin > LEAST_MARGIN and len(set(answer)) >= LEAST_DISTINCT:
            return attempt, prompt, answer, margin
    raise AssertionError(f"{shape.name}: no prompt of length {length} has a clear greedy answer")


def stored_positions(shape: Shape, length: int) -> list[int]:
    """Which rows of logits are kept: the prompt's last and middle one, or all, and the last one of the answer."""
    rows = range(length) if length in shape.every_position else {length // 2, length - 1}
    return sorted({*rows, length + GREEDY_TOKENS - 1})


@torch.no_grad()
def golden_of(shape: Shape) -> tuple[dict, dict[str, np.ndarray]]:
    """What is recorded of one configuration: its description, and its logits by tensor name."""
    model = model_of(shape)
    found = {length: prompt_with_clear_answer(model, shape, length) for length in PROMPT_LENGTHS}
    cases, tensors, all_logits = [], {}, []
    with ScoreSpread() as spread:
        for length, (attempt, prompt, answer, margin) in found.items():
            logits = model(torch.tensor([prompt + answer]), use_cache=False).logits[0]
            assert logits[length - 1 : -1].argmax(-1).tolist() == answer, "the cache must not change the answer"
            rows = stored_positions(shape, length)
            name = f"{shape.name}.{length}"
            tensors[name] = logits[rows].numpy().copy()
            all_logits.append(logits.flatten())
            cases.append(
                {"logits": name, "attempt": attempt, "prompt": prompt, "greedy": answer, "margin": margin, "rows": rows}
            )
    score_std, logit_std = spread.deviations(), float(torch.cat(all_logits).std())
    assert min(score_std) >= 1 and logit_std >= 1, (shape.name, score_std, logit_std)
    config = asdict(shape)
    for key in ("name", "seed", "every_position"):
        config.pop(key)
    described = {
        "name": shape.name,
        "seed": shape.seed,
        "scales": scales(shape),
        "config": config,
        "measured": {"attention_score_std": score_std, "logit_std": logit_std},
        "cases": cases,
    }
    return described, tensors


def make() -> tuple[list[dict], dict[str, np.ndarray]]:
    """All configurations."""
    described, tensors = [], {}
    for shape in SHAPES:
        one, its_tensors = golden_of(shape)
        described.append(one)
        tensors.update(its_tensors)
        measured = one["measured"]
        margins = min(case["margin"] for case in one["cases"])
        print(
            f"{shape.name}: scores {min(measured['attention_score_std']):.2f}.."
            f"{max(measured['attention_score_std']):.2f}, logits {measured['logit_std']:.2f}, least margin {margins:.4f}"
        )
    return described, tensors
