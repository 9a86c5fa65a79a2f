"""What transformers' logits processors leave of random logits, in the order in which XVERSE's `generate` runs them.

Owns the settings that are tried. Repetition penalty over prompt and output, temperature, top-k, top-p; what is recorded is
the distribution that is drawn from. A case whose cut would depend on rounding is not recorded but refused.
"""

import math

import numpy as np
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import generator

LEAST_DISTANCE_TO_CUT = 2e-5
MOST_SUPPORT = 700

# vocabulary, spread of the logits, temperature, top_k, top_p, repetition_penalty, tokens seen
SETTINGS = [
    (700, 8, 0.5, 30, 0.85, 1.1, 0),
    (700, 8, 0.5, 30, 0.85, 1.1, 20),
    (700, 8, 0.5, 30, 0.85, 1.1, 400),
    (1003, 8, 0.5, 30, 0.85, 1.1, 64),
    (1003, 2, 0.5, 30, 0.85, 1.1, 64),
    (1003, 32, 0.5, 30, 0.85, 1.1, 300),
    (5000, 8, 0.5, 30, 0.85, 1.1, 2000),
    (1003, 8, 1.0, 50, 0.92, 1.0, 64),
    (1003, 8, 1.0, 0, 0.92, 1.0, 0),
    (700, 4, 1.0, 0, 0.92, 1.1, 100),
    (700, 4, 2.0, 0, 0.5, 1.3, 100),
    (1003, 4, 2.0, 100, 1.0, 1.0, 0),
    (1003, 4, 2.0, 100, 0.99, 1.0, 30),
    (1003, 8, 0.1, 30, 0.85, 1.1, 30),
    (1003, 8, 0.01, 30, 0.85, 1.1, 30),
    (1003, 16, 1.0, 1, 0.85, 1.1, 30),
    (1003, 16, 1.0, 2, 0.99, 1.1, 30),
    (1003, 16, 1.0, 30, 0.05, 1.1, 30),
    (1003, 1, 0.7, 30, 0.05, 1.1, 30),
    (1003, 8, 1.0, 30, 0.85, 2.0, 600),
    (1003, 8, 1.0, 30, 0.85, 0.5, 600),
    (1003, 2, 1.0, 100, 0.85, 0.5, 20),
    (64, 4, 1.0, 100, 1.0, 1.1, 10),
    (64, 4, 1.0, 0, 1.0, 1.0, 0),
    (64, 4, 1.0, 64, 0.9, 1.1, 10),
    (16, 8, 0.5, 30, 0.85, 1.1, 5),
    (2, 1, 1.0, 30, 0.85, 1.1, 1),
    (1, 1, 1.0, 30, 0.85, 1.1, 1),
    (700, 8, 0.3, 10, 0.7, 1.05, 50),
    (700, 8, 0.9, 40, 0.95, 1.2, 50),
    (700, 8, 1.5, 5, 0.6, 1.0, 50),
    (4096, 1, 0.5, 0, 0.1, 1.1, 4000),
    (700, 64, 2.0, 30, 0.85, 1.1, 50),
]


def processors(temperature: float, top_k: int, top_p: float, penalty: float) -> LogitsProcessorList:
    """The list that `generate` builds for these settings; the value that means "off" leaves a step out."""
    steps = LogitsProcessorList()
    if penalty != 1.0:
        steps.append(RepetitionPenaltyLogitsProcessor(penalty))
    if temperature != 1.0:
        steps.append(TemperatureLogitsWarper(temperature))
    if top_k != 0:
        steps.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        steps.append(TopPLogitsWarper(top_p))
    return steps


def distance_to_cut(scores: torch.Tensor, top_p: float) -> float:
    """How far the nearest cumulative probability is from where top-p cuts."""
    if top_p >= 1.0:
        return math.inf
    rising = torch.softmax(scores.double(), -1).sort().values.cumsum(-1)
    return float((rising - (1 - top_p)).abs().min())


def golden_of(idx: int, setting: tuple, ties: bool) -> dict:
    """One case: its settings and the distribution that is drawn from."""
    vocab_size, spread, temperature, top_k, top_p, penalty, n_seen = setting
    name = f"sampling.{idx}"
    logits = generator.logits(7, name, vocab_size, float(spread))
    if ties:
        # Coarse logits: many tokens share a value, also at the place where top-k cuts.
        logits = np.round(logits).astype(np.float32)
    seen = generator.ids(7, f"{name}.seen", n_seen, vocab_size)
    scores = torch.from_numpy(logits)[None]
    history = torch.tensor([seen], dtype=torch.long)
    steps = processors(temperature, top_k, top_p, penalty)
    before_top_p = LogitsProcessorList([step for step in steps if not isinstance(step, TopPLogitsWarper)])
    distance = distance_to_cut(before_top_p(history, scores.clone()), top_p)
    assert distance > LEAST_DISTANCE_TO_CUT, (idx, distance)
    probabilities = torch.softmax(steps(history, scores.clone()), -1)[0]
    support = [int(token) for token in torch.argsort(probabilities, descending=True, stable=True) if probabilities[token] > 0]
    assert 0 < len(support) <= MOST_SUPPORT, (idx, len(support))
    raw = torch.log_softmax(scores[0], -1)
    ranked = torch.argsort(raw, descending=True, stable=True)[:5]
    greedy = LogitsProcessorList([s for s in steps if isinstance(s, RepetitionPenaltyLogitsProcessor)])(history, scores.clone())
    return {
        "name": name,
        "vocab_size": vocab_size,
        "spread": float(spread),
        "ties": ties,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": penalty,
        "n_seen": n_seen,
        "support": support,
        "probabilities": [float(f"{float(probabilities[token]):.9g}") for token in support],
        "greedy": int(greedy[0].argmax()),
        "top_logprobs": [[int(token), float(f"{float(raw[token]):.9g}")] for token in ranked],
    }


def make() -> dict:
    """All cases."""
    cases = [golden_of(idx, setting, ties=False) for idx, setting in enumerate(SETTINGS)]
    tied = [(700, 8, 1.0, 30, 1.0, 1.0, 0), (700, 8, 0.5, 5, 1.0, 1.0, 0), (64, 2, 1.0, 3, 1.0, 1.0, 0)]
    cases += [golden_of(len(SETTINGS) + idx, setting, ties=True) for idx, setting in enumerate(tied)]
    print(f"sampling: {len(cases)} cases, support of {[len(case['support']) for case in cases]}")
    return {"seed": 7, "cases": cases}
