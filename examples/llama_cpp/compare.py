"""Compares this engine with llama.cpp on one machine: the same GGUF file, the same threads, in turns.

Writes one JSON object with every run, and prints the medians. Needs what requirements.txt lists; llama-cpp-python compiles
llama.cpp for the processor at hand, which takes eight minutes on two cores.

    python examples/llama_cpp/random_gguf.py --shape 1b --format q8_0 1b-q8_0.gguf
    python examples/llama_cpp/random_gguf.py --shape 1b --format q4_k 1b-q4_k.gguf
    python examples/llama_cpp/compare.py 1b-q8_0.gguf 1b-q4_k.gguf --json benches/results/NAME.json
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def ours(binary, model, arguments, sequences):
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [binary, "bench", "--model_path", model, "--device", "cpu", "--threads", arguments.threads]
        command += ["--prompt", arguments.prompt, "--generate", arguments.new, "--concurrency", sequences]
        subprocess.run([str(part) for part in [*command, "--json", report.name]], check=True, stdout=subprocess.DEVNULL)
        cell = json.loads(Path(report.name).read_text())["cells"][0]
    return {"prefill": round(cell["prefill_tok_s"], 2), "decode": round(cell["decode_tok_s"], 2)}


def theirs(model, arguments, sequences):
    command = [sys.executable, HERE / "llama_speed.py", model, "--threads", arguments.threads, "--runs", 1]
    command += ["--prompt", arguments.prompt, "--new", arguments.new, "--sequences", sequences]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    for name, default in (("threads", 2), ("prompt", 512), ("new", 64), ("runs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sequences", default="1,4")
    parser.add_argument("--binary", default=ROOT / "target/release/xverse-chat")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    cases = [(model, int(n)) for model in arguments.models for n in arguments.sequences.split(",")]
    runs = {case: {"ours": [], "llama.cpp": []} for case in cases}
    for _ in range(arguments.runs):
        for case in cases:
            model, sequences = case
            runs[case]["ours"].append(ours(arguments.binary, model, arguments, sequences))
            runs[case]["llama.cpp"].append(theirs(model, arguments, sequences))
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    cells = []
    for (model, sequences), both in runs.items():
        cell = {"model": Path(model).name, "sequences": sequences, "runs": both}
        for figure in ("prefill", "decode"):
            medians = {who: statistics.median(run[figure] for run in of) for who, of in both.items()}
            cell[figure] = {**medians, "ratio": round(medians["ours"] / medians["llama.cpp"], 2)}
        cells.append(cell)
        print(cell["model"], sequences, "prefill", cell["prefill"], "decode", cell["decode"])
    command = " ".join(["python examples/llama_cpp/compare.py", *(Path(part).name for part in sys.argv[1:])])
    report = {
        "processor": platform.processor() or platform.machine(),
        "threads": arguments.threads,
        "prompt": arguments.prompt,
        "new": arguments.new,
        "llama_cpp_python": llama_cpp.__version__,
        "commit": commit.stdout.strip(),
        "command": command,
        "cells": cells,
    }
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
