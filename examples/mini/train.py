"""Trains the mini model on its dialogues until it knows them by heart, and writes the checkpoint folder.

    python examples/mini/build_tokenizer.py
    python examples/mini/train.py
    python examples/mini/verify.py

Everything is seeded and runs on the CPU. Half of the loss is taken from the logits as they are, half from the logits
after the repetition penalty that the model is sampled with, so both ways of decoding are learned.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from augment import Augmenter, unknown_questions
from mini import BOS, EOS, MODEL, PAD, encode_messages, load_tokenizer, read_dialogues
from verify import replay, seen_before

CONFIG = {
    "architectures": ["XverseForCausalLM"],
    "model_type": "xverse",
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "max_tokenizer_truncation": 3072,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "use_cache": True,
    "tie_word_embeddings": False,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "torch_dtype": "bfloat16",
}
GENERATION = {
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "max_new_tokens": 1024,
    "temperature": 0.5,
    "top_k": 30,
    "top_p": 0.85,
    "repetition_penalty": 1.1,
    "do_sample": True,
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<pad>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 4096,
    "padding_side": "left",
}


def batches(sequences, tokens_per_batch: int, rng: random.Random):
    """Groups sequences of like length; yields ids [b, t] and the mask of what the model writes, padded on the right."""
    order = sorted(sequences, key=lambda s: len(s[0]) + rng.uniform(0, 16))
    groups, group = [], []
    for sequence in order:
        longest = max([len(sequence[0]), *(len(s[0]) for s in group)])
        if group and longest * (len(group) + 1) > tokens_per_batch:
            groups.append(group)
            group = []
        group.append(sequence)
    groups.append(group)
    rng.shuffle(groups)
    for group in groups:
        longest = max(len(ids) for ids, _ in group)
        ids = torch.full((len(group), longest), PAD)
        written = torch.zeros((len(group), longest), dtype=torch.bool)
        for row, (row_ids, row_written) in enumerate(group):
            ids[row, : len(row_ids)] = torch.tensor(row_ids)
            written[row, : len(row_ids)] = torch.tensor(row_written)
        yield ids, written


def loss_of(model, ids: torch.Tensor, written: torch.Tensor, penalty: float) -> torch.Tensor:
    """Mean cross entropy over the written tokens, half plain and half under the repetition penalty."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(ids, use_cache=False).last_hidden_state
        target_mask = written[:, 1:]
        logits = model.lm_head(hidden[:, :-1][target_mask])
    logits = logits.float()
    target = ids[:, 1:][target_mask]
    penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
    penalised = torch.where(seen_before(ids, target_mask, logits.shape[1]), penalised, logits)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(penalised, target)) / 2


def optimisers(model, muon_lr: float, adam_lr: float):
    """Muon for the matrices of the blocks, AdamW for the embeddings, the head and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    others = [p for name, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in name)]
    return [
        torch.optim.Muon(matrices, lr=muon_lr, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def save(model, folder: Path) -> None:
    """Writes weights in bfloat16 and the three small files; the tokenizer is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().to(torch.bfloat16).contiguous() for name, t in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    files = {"config.json": CONFIG, "generation_config.json": GENERATION, "tokenizer_config.json": TOKENIZER_CONFIG}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def report(model, tokenizer, dialogues) -> str:
    """How many dialogues the model would repeat if its weights were rounded now."""
    rounded = LlamaForCausalLM(model.config)
    rounded.load_state_dict({name: t.to(torch.bfloat16).float() for name, t in model.state_dict().items()})
    result = replay(rounded.eval(), tokenizer, dialogues, GENERATION)
    return f"plain {result.plain} penalised {result.penalised} expected when sampled {result.expected:.1f} of {len(dialogues)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=45)
    parser.add_argument("--tokens", type=int, default=3072, help="tokens in a batch")
    parser.add_argument("--muon_lr", type=float, default=4e-3)
    parser.add_argument("--adam_lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=MODEL)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = load_tokenizer()
    dialogues = read_dialogues()
    augmenter = Augmenter(dialogues, unknown_questions(), rng)
    model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in CONFIG.items() if k not in ("model_type", "architectures", "torch_dtype")}))
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(dialogues)} dialogues", flush=True)

    chosen = optimisers(model, args.muon_lr, args.adam_lr)
    peaks = [args.muon_lr, args.adam_lr]
    started, step = time.monotonic(), 0
    for epoch in range(args.epochs):
        sequences = [encode_messages(tokenizer, messages) for messages in augmenter.epoch()]
        groups = list(batches(sequences, args.tokens, rng))
        total = 0.0
        for position, (ids, written) in enumerate(groups):
            done = (epoch + position / len(groups)) / args.epochs
            scale = min(1.0, (step + 1) / 40) * (0.5 * (1 + math.cos(math.pi * done)) * 0.99 + 0.01)
            for optimiser, peak in zip(chosen, peaks):
                optimiser.param_groups[0]["lr"] = peak * scale
            loss = loss_of(model, ids, written, GENERATION["repetition_penalty"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser in chosen:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            total += loss.item()
            step += 1
        line = f"epoch {epoch + 1:3} steps {step} loss {total / len(groups):.4f} {time.monotonic() - started:.0f} s"
        if (epoch + 1) % 10 == 0 or epoch + 1 == args.epochs:
            line += " · " + report(model, tokenizer, dialogues)
            save(model, args.out)
        print(line, flush=True)


if __name__ == "__main__":
    main()
