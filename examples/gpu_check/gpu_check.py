"""Proves the cuda backend on a card: that it is right, how fast it is, and how fast others are in the same run.

Needs the program that `make cuda` built, and Python with torch, transformers and safetensors. Three parts, each of a few minutes on
an H100, which add to one JSON file; what is in it already is not done again, so that a run that was cut off goes on.

    python examples/gpu_check/gpu_check.py --json benches/results/NAME.json              all parts, 13B shape, on the card
    python examples/gpu_check/gpu_check.py --json x.json --part correct                   one of correct, bench, peers
    python examples/gpu_check/gpu_check.py --json x.json --device cpu --shape tiny        the script itself, without a card
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from decoder import compiled_decoder_speed
from model import SHAPES, load_transformers, write_checkpoint
from table import table

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS = {"bf16": [], "8": ["--quantize", "8"], "4": ["--quantize", "4"]}
# Tokens of the sequences whose logits are compared.
LENGTHS = {"13b": [24, 130, 600], "1b": [24, 130, 300], "tiny": [5, 40, 70]}


class Check:
    def __init__(self, arguments):
        self.arguments = arguments
        self.path = Path(arguments.json)
        self.done = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.folder = Path(arguments.folder or tempfile.mkdtemp(prefix="gpu-check-"))
        self.torch_device = "cuda" if arguments.device.startswith("cuda") and torch.cuda.is_available() else "cpu"

    def model(self):
        """The checkpoint of random weights, written where it is not there yet."""
        return write_checkpoint(self.folder / self.arguments.shape, self.arguments.shape)

    def once(self, name, make):
        """Does one thing, unless the file has it, and keeps it at once."""
        if name not in self.done:
            began = time.monotonic()
            print(f"{name} …", file=sys.stderr, flush=True)
            self.done[name] = make()
            self.done.setdefault("seconds", {})[name] = round(time.monotonic() - began, 1)
            self.path.write_text(json.dumps(self.done, indent=2) + "\n")
        return self.done[name]

    def program(self, *words):
        """Runs the program; what it says on standard error must not name anything that goes wrong."""
        command = [self.arguments.binary, *map(str, words), "--device", self.arguments.device]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
        if done.returncode != 0 or "goes wrong" in done.stderr + done.stdout:
            sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    # Part one.

    def ids(self):
        generator = torch.Generator().manual_seed(7)
        vocabulary = SHAPES[self.arguments.shape]["vocab_size"]
        lengths = LENGTHS[self.arguments.shape]
        return [torch.randint(4, vocabulary, (n,), generator=generator).tolist() for n in lengths]

    def logits(self, *words):
        """The program's logits of all ids, shape (position, vocabulary), and their bytes' name."""
        ids, output = self.folder / "ids.json", self.folder / "logits.f32"
        ids.write_text(json.dumps(self.ids()))
        self.program("logits", "--model_path", self.model(), "--ids", ids, "--output", output, *words)
        vocabulary = SHAPES[self.arguments.shape]["vocab_size"]
        return torch.from_file(str(output), size=output.stat().st_size // 4, dtype=torch.float32).clone().view(-1, vocabulary)

    def transformers_logits(self, dtype):
        model = load_transformers(self.model(), self.arguments.shape, dtype, self.torch_device)
        with torch.inference_mode():
            rows = [model(torch.tensor([ids], device=self.torch_device)).logits[0].float().cpu() for ids in self.ids()]
        del model
        if self.torch_device == "cuda":
            torch.cuda.empty_cache()
        return torch.cat(rows)

    def correct(self):
        oracle = None

        def expected():
            nonlocal oracle
            if oracle is None:
                oracle = self.transformers_logits(torch.float32)
            return oracle

        self.once("kernels", self.kernels)
        self.once("transformers_bf16", lambda: compared(expected(), self.transformers_logits(torch.bfloat16)))
        for precision, words in PRECISIONS.items():
            self.once(f"logits_{precision}", lambda words=words: compared(expected(), self.logits(*words)))
        one_by_one = ["--chunk", 1]
        self.once("graph_is_eager", lambda: same(self.logits(*one_by_one), self.logits(*one_by_one, "--no_graphs")))
        self.once("batch_is_solo", lambda: same(self.logits(*one_by_one), self.logits(*one_by_one, "--together")))
        self.once("ahead_is_after", self.ahead_is_after)

    def ahead_is_after(self):
        """Whether tokens that are drawn before the ones before them have arrived are the same as without."""
        sizes = ["--prompt", 40, "--generate", 100 if self.arguments.shape != "tiny" else 20, "--concurrency", "1,5"]
        cells = [self.reported(*sizes, *words)["cells"] for words in ([], ["--no_ahead"])]
        return {"positions": len(cells[0]), "differ": sum(one["drawn"] != other["drawn"] for one, other in zip(*cells))}

    def reported(self, *words):
        """What `bench` reports."""
        report = self.folder / "bench.json"
        self.program("bench", "--model_path", self.model(), *words, "--json", report)
        return json.loads(report.read_text())

    def kernels(self):
        """What the program's own check says of each part, and the largest of the errors relative to plain code's."""
        said = self.program("check", "--model_path", self.model()).stdout
        lines = [line.removeprefix("card").strip() for line in said.splitlines() if line.startswith("card ")]
        ratios = [float(of) for line in lines for of in re.findall(r"its error ([0-9.]+) of", line)]
        return {"parts": lines, "largest_ratio": max(ratios, default=None), "wrong": [line for line in lines if " is wrong" in line]}

    # Part two.

    def bench(self):
        small = self.arguments.shape == "tiny"
        cells = {
            "short": dict(prompt=64 if not small else 16, generate=256 if not small else 8, concurrency=1),
            "long": dict(prompt=7900 if not small else 200, generate=64 if not small else 4, concurrency=1),
            "eight": dict(prompt=960 if not small else 32, generate=128 if not small else 4, concurrency=8),
            "thirty_two": dict(prompt=448 if not small else 16, generate=128 if not small else 4, concurrency=32),
        }
        for precision, words in PRECISIONS.items():
            for cell, what in cells.items():
                self.once(f"bench_{precision}_{cell}", lambda words=words, what=what: self.measured(words, **what))
        prompt = 2048 if not small else 100
        self.once("bench_prefill", lambda: self.measured([], prompt=prompt, generate=2, concurrency=1))
        scenes = ["--history", 2000 if not small else 64, "--beside", 4000 if not small else 128]
        self.once("bench_scenes", lambda: self.measured(scenes, prompt=64, generate=2, concurrency=1))
        for precision, words in PRECISIONS.items():
            context = 2048 - 64 if not small else 100
            self.once(
                f"bench_memory_{precision}",
                lambda words=words: self.measured(words, prompt=context, generate=64 if not small else 2, concurrency=1),
            )

    def measured(self, words, prompt, generate, concurrency):
        sizes = ["--prompt", prompt, "--generate", generate, "--concurrency", concurrency]
        with MemoryWatch(self.torch_device) as memory:
            found = self.reported(*sizes, *words)
        return {**found["cells"][0], "load_s": found["load_s"], "copy_gb_s": found["copy_gb_s"], "device": found["device"],
                "commit": found["commit"], "second_turn": found["second_turn"], "beside": found["beside"],
                "device_memory_gb": memory.most_gb}

    # Part three.

    def peers(self):
        model = None

        def loaded():
            nonlocal model
            if model is None:
                model = load_transformers(self.model(), self.arguments.shape, torch.bfloat16, self.torch_device)
            return model

        n_tokens = 128 if self.arguments.shape != "tiny" else 8
        self.once("transformers_eager", lambda: generate_speed(loaded(), n_tokens))
        self.once("transformers_compiled", lambda: generate_speed(loaded(), n_tokens, compiled=True))
        del model
        if self.torch_device == "cuda":
            torch.cuda.empty_cache()
        self.once("compiled_decoder", lambda: compiled_decoder_speed(self.arguments.shape, self.torch_device, n_tokens))


def environment():
    """This program's, with the folder of torch's own cuBLAS, which serves where CUDA itself is not installed."""
    folders = {str(path.parent) for path in (Path(torch.__file__).parents[1] / "nvidia").glob("**/libcublas.so*")}
    known = os.environ.get("LD_LIBRARY_PATH")
    return {**os.environ, "LD_LIBRARY_PATH": ":".join([*([known] if known else []), *sorted(folders)])}


class MemoryWatch:
    """The most memory that the card had in use meanwhile, 10⁹ bytes; nothing without a card."""

    def __init__(self, device):
        self.most_gb, self.process, self.is_used = None, None, device == "cuda"

    def __enter__(self):
        if self.is_used:
            query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--loop-ms=100"]
            self.process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            lines = [line for line in self.process.stdout.read().split() if line.isdigit()]
            self.most_gb = round(max(map(int, lines), default=0) * (1 << 20) / 1e9, 2)


def compared(oracle, found):
    """How logits differ from those of the f32 oracle."""
    top = oracle.topk(2).values
    sure = top[:, 0] - top[:, 1] >= 0.2
    agrees = oracle.argmax(-1) == found.argmax(-1)
    divergence = torch.nn.functional.kl_div(found.log_softmax(-1), oracle.log_softmax(-1), reduction="none", log_target=True)
    return {
        "positions": len(oracle),
        "sure": int(sure.sum()),
        "sure_disagreements": int((sure & ~agrees).sum()),
        "unsure_disagreements": int((~sure & ~agrees).sum()),
        "mean_kl": float(divergence.sum(-1).mean()),
        "largest_difference": float((oracle - found).abs().max()),
    }


def same(first, second):
    return {"positions": len(first), "differ": int((first != second).any(-1).sum())}


def generate_speed(model, n_tokens, compiled=False):
    """Tokens a second of `generate`, greedy, after a prompt of 64 tokens; the best of three after one to warm up."""
    ids = torch.arange(10, 74, device=model.device)[None]
    options = dict(max_new_tokens=n_tokens, min_new_tokens=n_tokens, do_sample=False, pad_token_id=1)
    if compiled:
        model.forward = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)
        options["cache_implementation"] = "static"
    best = 0.0
    with torch.inference_mode():
        for _ in range(4):
            began = time.monotonic()
            model.generate(ids, **options)
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            best = max(best, n_tokens / (time.monotonic() - began))
    return {"tok_s": best}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True)
    parser.add_argument("--part", choices=["correct", "bench", "peers", "all"], default="all")
    parser.add_argument("--device", default=os.environ.get("DEVICE", "cuda"))
    parser.add_argument("--shape", choices=list(SHAPES))
    parser.add_argument("--binary", default=str(ROOT / "target/release/xverse-chat"))
    parser.add_argument("--folder", help="where the checkpoint of random weights lies or is written (27 GB for 13b)")
    arguments = parser.parse_args()
    arguments.shape = arguments.shape or ("13b" if arguments.device.startswith("cuda") else "tiny")
    check = Check(arguments)
    check.done.setdefault("shape", arguments.shape)
    check.done.setdefault("torch", torch.__version__)
    if check.done["shape"] != arguments.shape:
        sys.exit(f"{arguments.json} is of shape {check.done['shape']}, asked for {arguments.shape}\nhint: another --json")
    for part in ["correct", "bench", "peers"] if arguments.part == "all" else [arguments.part]:
        getattr(check, part)()
    print(table(check.done))


if __name__ == "__main__":
    main()
