"""Measures how many of its training dialogues the mini model gives back word for word.

A dialogue counts when every answer, given the true conversation before it, comes out with exactly its tokens and ends.
Greedy decoding does that if and only if each token of the answer has the highest score after the true tokens before it,
so one forward pass a dialogue decides it. For sampling the same pass gives the exact probability, and seeded draws.

    python examples/mini/verify.py                # replay: seconds
    python examples/mini/verify.py --generate     # also decodes every answer token by token: minutes

Exits with 1 below 95 %.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from mini import EOS, MODEL, PAD, Dialogue, encode_messages, load_tokenizer, read_dialogues

NEEDED = 0.95


@dataclass
class Replay:
    """Counts of dialogues given back whole; `expected` is the sum of the probabilities under sampling."""

    plain: int
    penalised: int
    expected: float
    sampled: list[int]
    missed: list[str]


def load_model(folder: Path) -> LlamaForCausalLM:
    """The checkpoint in float32 arithmetic; XVERSE is LLaMA, so LLaMA's class runs it."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("model_type", "architectures", "torch_dtype", "max_tokenizer_truncation"):
        config.pop(key)
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict({name: t.float() for name, t in load_file(folder / "model.safetensors").items()})
    return model.eval()


def seen_before(ids: torch.Tensor, target_mask: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """For each target, the ids that stand before it. `ids` is [b, t], the mask [b, t - 1]; returns [n, vocab]."""
    n_rows, length = ids.shape
    first = torch.full((n_rows, vocab_size), length)
    first.scatter_reduce_(1, ids, torch.arange(length).expand(n_rows, -1), reduce="amin")
    row, position = target_mask.nonzero(as_tuple=True)
    return first[row] <= position[:, None]


def sampling_distribution(penalised: torch.Tensor, generation: dict) -> torch.Tensor:
    """Temperature, top-k, softmax, top-p over [n, vocab] in the order of Hugging Face's generate."""
    scores = penalised / generation["temperature"]
    kept = scores.topk(generation["top_k"], dim=-1).values[:, -1:]
    scores = scores.masked_fill(scores < kept, -torch.inf)
    ascending, order = scores.sort(dim=-1)
    below = ascending.softmax(-1).cumsum(-1) <= 1 - generation["top_p"]
    below[:, -1] = False
    scores = scores.masked_fill(torch.zeros_like(below).scatter(1, order, below), -torch.inf)
    return scores.softmax(-1)


@torch.no_grad()
def replay(model, tokenizer, dialogues: list[Dialogue], generation: dict, n_seeds: int = 5) -> Replay:
    """One forward pass over each dialogue."""
    result = Replay(0, 0, 0.0, [0] * n_seeds, [])
    penalty = generation["repetition_penalty"]
    draws = [torch.Generator().manual_seed(seed) for seed in range(n_seeds)]
    for dialogue in dialogues:
        ids, written = (torch.tensor(values)[None] for values in encode_messages(tokenizer, dialogue.messages))
        target_mask = written[:, 1:]
        logits = model(ids).logits[:, :-1][target_mask]
        target = ids[:, 1:][target_mask]
        penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
        penalised = torch.where(seen_before(ids, target_mask, logits.shape[1]), penalised, logits)
        chances = sampling_distribution(penalised, generation)

        greedy = bool((penalised.argmax(-1) == target).all())
        result.plain += bool((logits.argmax(-1) == target).all())
        result.penalised += greedy
        result.expected += chances.gather(1, target[:, None]).log().sum().exp().item()
        for seed, draw in enumerate(draws):
            result.sampled[seed] += bool((torch.multinomial(chances, 1, generator=draw)[:, 0] == target).all())
        if not greedy:
            result.missed.append(dialogue.name)
    return result


@torch.no_grad()
def generated(model, tokenizer, dialogues: list[Dialogue], settings: dict) -> int:
    """Decodes every answer after its true history, and counts the dialogues whose answers are all right."""
    whole = 0
    for dialogue in dialogues:
        right = True
        for turn, (role, answer) in enumerate(dialogue.messages):
            if role != "assistant":
                continue
            prompt, _ = encode_messages(tokenizer, [*dialogue.messages[:turn], ("assistant", "")])
            ids = torch.tensor([prompt[:-1]])
            out = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=PAD, eos_token_id=EOS,
                                 max_new_tokens=1024, **settings)
            right = right and tokenizer.decode(out[0, ids.shape[1]:].tolist(), skip_special_tokens=True) == answer
        whole += right
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--generate", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model, tokenizer, dialogues = load_model(args.model), load_tokenizer(args.model), read_dialogues()
    generation = json.loads((args.model / "generation_config.json").read_text(encoding="utf-8"))
    result = replay(model, tokenizer, dialogues, generation)
    shares = {
        "greedy, no penalty": result.plain,
        f"greedy, penalty {generation['repetition_penalty']}": result.penalised,
        "sampled, expected": result.expected,
        **{f"sampled, seed {seed}": count for seed, count in enumerate(result.sampled)},
    }
    if args.generate:
        keys = ("temperature", "top_k", "top_p", "repetition_penalty")
        sampling = {"do_sample": True, **{key: generation[key] for key in keys}}
        greedy = {"do_sample": False, "repetition_penalty": generation["repetition_penalty"]}
        shares["decoded greedily, with the penalty"] = generated(model, tokenizer, dialogues, greedy)
        torch.manual_seed(0)
        shares["decoded by sampling, seed 0"] = generated(model, tokenizer, dialogues, sampling)
    for name, count in shares.items():
        print(f"{name:36} {count:7.2f} of {len(dialogues)}  {100 * count / len(dialogues):6.2f} %")
    print("missed:", ", ".join(result.missed) or "none")
    sys.exit(min(shares.values()) < NEEDED * len(dialogues))


if __name__ == "__main__":
    main()
