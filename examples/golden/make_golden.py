"""Makes the golden files of `tests/golden/data`, or checks that they are what this script makes. See README.md."""

import argparse
import json
import os
import platform
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np  # noqa: E402
import tokenizers as tokenizers_library  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

import generator  # noqa: E402
import logits  # noqa: E402
import prompts  # noqa: E402
import sampling  # noqa: E402
import tokenizers_of_xverse_kind as xverse_tokenizers  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "tests" / "golden" / "data"
MOST_BYTES = 1_500_000
LOGITS_TOLERANCE = 2e-5


def as_text(value) -> str:
    """JSON with one case a line: small, and still readable in a diff."""
    if isinstance(value, dict):
        rows = [f"{json.dumps(key)}:{as_text(one) if key in LISTS else compact(one)}" for key, one in value.items()]
        return "{\n" + ",\n".join(rows) + "\n}"
    return "[\n" + ",\n".join(as_text(one) if "cases" in one else compact(one) for one in value) + "\n]"


LISTS = {"cases", "models", "encodings", "v1", "v2"}


def compact(value) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def generator_golden() -> dict:
    """A few numbers, so that a wrong generator is seen for what it is."""
    return {
        "bits": [str(z) for z in generator.bits(5, "model.norm.weight", 4)],
        "weights": [float(x) for x in generator.weights(5, "model.norm.weight", 4, 1.0, 0.25)],
        "logits": [float(x) for x in generator.logits(5, "model.norm.weight", 4, 8.0)],
        "ids": generator.ids(5, "model.norm.weight", 4, 1003),
    }


def made() -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """All files: texts by name, and the tensors of logits.safetensors."""
    tokenizers = xverse_tokenizers.make()
    models, tensors = logits.make()
    encodings = {
        version: {"with_special_tokens": one["with_special_tokens"], "cases": one["cases"]}
        for version, one in tokenizers.items()
    }
    texts = {
        "generator.json": as_text(generator_golden()),
        "logits.json": as_text({"models": models}),
        "sampling.json": as_text(sampling.make()),
        "prompts.json": as_text({"cases": prompts.make(tokenizers, xverse_tokenizers.encode)}),
        "encodings.json": as_text({"encodings": encodings}),
    }
    for version, one in tokenizers.items():
        texts[f"tokenizer-{version}/tokenizer.json"] = json.dumps(one["file"], ensure_ascii=False, indent=0)
    return texts, tensors


def write(texts: dict[str, str], tensors: dict[str, np.ndarray]) -> None:
    for name, text in texts.items():
        path = DATA / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    save_file(tensors, DATA / "logits.safetensors")
    size = sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file())
    assert size <= MOST_BYTES, f"{size} bytes"
    print(f"{size} bytes in {DATA}")


def without_measured(text: str):
    """logits.json without the numbers that differ in their last digits from one processor to another."""
    models = json.loads(text)["models"]
    for model in models:
        del model["measured"]
        for case in model["cases"]:
            del case["margin"]
    return models


def differences(texts: dict[str, str], tensors: dict[str, np.ndarray]) -> list[str]:
    """What in the stored files is not what was made now."""
    wrong = []
    for name, text in texts.items():
        stored = (DATA / name).read_text(encoding="utf-8")
        if name == "logits.json":
            same = without_measured(stored) == without_measured(text)
        else:
            same = json.loads(stored) == json.loads(text)
        if not same:
            wrong.append(name)
    stored = load_file(DATA / "logits.safetensors")
    if stored.keys() != tensors.keys():
        return [*wrong, "logits.safetensors: names"]
    furthest = max(float(np.abs(stored[name] - tensor).max()) for name, tensor in tensors.items())
    print(f"largest difference of stored logits: {furthest:.2e}")
    return wrong if furthest <= LOGITS_TOLERANCE else [*wrong, "logits.safetensors: values"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the stored files instead of writing them")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print(
        f"python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"tokenizers {tokenizers_library.__version__}"
    )
    texts, tensors = made()
    if not arguments.check:
        write(texts, tensors)
        return 0
    wrong = differences(texts, tensors)
    print("all golden files are what this script makes" if not wrong else f"different: {', '.join(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
