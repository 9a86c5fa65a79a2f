"""Measures llama.cpp on a GGUF through its plain interface: prompt and decoding, in tokens a second.

Prints one JSON object a run: `prefill` for a prompt of --prompt tokens, `decode` for --new tokens after it with --sequences
sequences at once (tokens of all sequences together). The prompt is random tokens; logits are asked for where generating
needs them, and nothing is sampled.

    llama_speed.py MODEL.gguf --threads 2 --prompt 512 --new 128 --sequences 1 --runs 5
"""

import argparse
import json
import time

import llama_cpp as llama
import numpy as np


def decode(context, batch, rows):
    """Computes `rows` of (token, position, sequence, whether logits are needed)."""
    batch.n_tokens = len(rows)
    for index, (token, position, sequence, needed) in enumerate(rows):
        batch.token[index] = token
        batch.pos[index] = position
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = sequence
        batch.logits[index] = needed
    result = llama.llama_decode(context, batch)
    if result != 0:
        raise RuntimeError(f"llama_decode gave {result}")
    # The numbers may still be under way until they are asked for.
    llama.llama_synchronize(context)


def run(context, batch, n_vocab, arguments):
    """Seconds for the prompt of the first sequence and for all new tokens."""
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, n_vocab, arguments.prompt + arguments.new)
    llama.llama_memory_clear(llama.llama_get_memory(context), False)
    prefill = None
    for sequence in range(arguments.sequences):
        start = time.perf_counter()
        last = arguments.prompt - 1
        decode(context, batch, [(tokens[i], i, sequence, i == last) for i in range(arguments.prompt)])
        prefill = prefill or time.perf_counter() - start
    start = time.perf_counter()
    for position in range(arguments.prompt, arguments.prompt + arguments.new):
        decode(context, batch, [(tokens[position], position, sequence, True) for sequence in range(arguments.sequences)])
    return prefill, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    for name, default in (("threads", 2), ("prompt", 512), ("new", 128), ("sequences", 1), ("runs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--no-mmap", action="store_true", help="read the weights instead of mapping them")
    arguments = parser.parse_args()

    # Kept, as the library goes on calling it.
    silent = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silent, None)
    llama.llama_backend_init()
    params = llama.llama_model_default_params()
    params.use_mmap = not arguments.no_mmap
    model = llama.llama_model_load_from_file(arguments.model.encode(), params)
    if not model:
        raise SystemExit(f"cannot load {arguments.model}")
    params = llama.llama_context_default_params()
    params.n_seq_max = arguments.sequences
    params.n_ctx = arguments.sequences * (arguments.prompt + arguments.new + 64)
    params.n_batch = params.n_ubatch = max(arguments.prompt, arguments.sequences)
    params.n_threads = params.n_threads_batch = arguments.threads
    context = llama.llama_init_from_model(model, params)
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    batch = llama.llama_batch_init(max(arguments.prompt, arguments.sequences), 0, 1)
    for index in range(arguments.runs + 1):
        prefill, decoding = run(context, batch, n_vocab, arguments)
        if index > 0:
            result = {
                "prefill": round(arguments.prompt / prefill, 2),
                "decode": round(arguments.new * arguments.sequences / decoding, 2),
            }
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
