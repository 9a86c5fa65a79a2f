"""Makes the small files of other formats in `tests/golden/data/formats`: pickled .bin, GGUF, GPTQ, LoRA.

Needs torch, transformers, safetensors, gguf and peft; downloads nothing. What is expected of each file lies beside it.
"""

import argparse
import builtins
import hashlib
import json
import os
import pickle
import shutil
import struct
import tempfile
from collections import OrderedDict
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import gguf  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import serialization  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "tests" / "golden" / "data" / "formats"
MOST_BYTES = 300_000
NAMES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
PROJECTIONS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
PROJECTIONS += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def described(tensors: dict) -> dict:
    return {
        name: {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "sha256": hashlib.sha256(bytes_of(tensor)).hexdigest(),
        }
        for name, tensor in tensors.items()
    }


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def model(hidden: int, ffn: int, seed: int, heads=(4, 2)) -> tuple[dict, transformers.LlamaForCausalLM]:
    """A random two-layer model and the fields of its config.json as XVERSE writes them."""
    fields = {
        "architectures": ["XverseForCausalLM"], "model_type": "xverse", "hidden_act": "silu", "hidden_size": hidden,
        "intermediate_size": ffn, "num_hidden_layers": 2, "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1], "vocab_size": 40, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
        "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "tie_word_embeddings": False,
    }  # fmt: skip
    known = {key: value for key, value in fields.items() if key not in ("architectures", "model_type")}
    one = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**known, rope_theta=10000.0, attn_implementation="eager")
    ).eval()
    numbers = np.random.default_rng(seed)
    with torch.no_grad():
        for name, weight in sorted(one.named_parameters()):
            scale = 0.1 if name.endswith("norm.weight") else 1.5 * weight.shape[-1] ** -0.5
            offset = 1.0 if name.endswith("norm.weight") else 0.0
            values = offset + scale * numbers.standard_normal(tuple(weight.shape))
            weight.copy_(torch.from_numpy(values.astype(np.float32)))
    return fields, one


def reference(one: transformers.LlamaForCausalLM) -> dict:
    """What the model says: logits after a prompt in float32, and greedy tokens."""
    ids = [5, 17, 30, 9, 2, 38, 11]
    tokens = list(ids)
    with torch.no_grad():
        logits = one(torch.tensor([ids])).logits[0, -1].tolist()
        for _ in range(8):
            tokens.append(int(one(torch.tensor([tokens])).logits[0, -1].argmax()))
    return {"prompt": ids, "logits": logits, "greedy": tokens[len(ids) :]}


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class State:
    """Pickles as an object with a state."""


def pickles(root: Path) -> None:
    folder = root / "bin"
    folder.mkdir()
    fields, one = model(8, 12, 1, (2, 1))
    state = one.state_dict()
    # As XVERSE's own model code saves them.
    for layer in range(2):
        state[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = 10000.0 ** (-torch.arange(0, 4, 2) / 4)
    write_json(folder / "config.json", fields)
    torch.save(state, folder / "pytorch_model.bin")
    expected = {"pytorch_model.bin": described(state)}

    sharded = root / "bin-sharded"
    sharded.mkdir()
    write_json(sharded / "config.json", fields)
    half = OrderedDict((name, tensor.to(torch.bfloat16)) for name, tensor in state.items())
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in half.values())}, "weight_map": {}}
    middle = len(half) // 2
    for number, names in enumerate([list(half)[:middle], list(half)[middle:]], 1):
        name = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({key: half[key] for key in names}, sharded / name)
        expected[name] = described({key: half[key] for key in names})
        index["weight_map"].update(dict.fromkeys(names, name))
    write_json(sharded / "pytorch_model.bin.index.json", index)
    write_json(sharded / "expected.json", reference(one.to(torch.bfloat16).float()))

    numbers = torch.arange(24, dtype=torch.float32)
    shared = {
        "embed": torch.nn.Parameter(numbers.view(4, 6)), "head": numbers.view(4, 6), "first": numbers[:12].view(2, 6).clone(),
        "upper": torch.arange(12, dtype=torch.float16)[:6], "column": torch.ones(3, 1).as_strided((3, 1), (1, 7)),
    }  # fmt: skip
    pair = torch.arange(8, dtype=torch.bfloat16)
    shared |= {"left": pair[:4].view(2, 2), "right": pair[4:]}
    types = {f"of_{NAMES[dtype].lower()}": torch.ones(3, dtype=dtype) for dtype in NAMES}
    types |= {"scalar": torch.tensor(1.5), "empty": torch.ones(0, 3)}
    for name, tensors in [("shared.bin", shared), ("types.bin", types)]:
        torch.save(tensors, folder / name)
        expected[name] = described(tensors)
    torch.save(types, folder / "protocol4.bin", pickle_protocol=4)
    expected["protocol4.bin"] = described(types)
    write_json(folder / "expected.json", expected)

    refused = root / "bin-refused"
    refused.mkdir()
    # The beginning of what old versions write; the rest has addresses of the process in it.
    with open(refused / "legacy.bin", "wb") as file:
        for part in [serialization.MAGIC_NUMBER, serialization.PROTOCOL_VERSION, {"little_endian": True}]:
            pickle.dump(part, file, protocol=2)
    torch.save({"a": torch.ones(3, 2).t()}, refused / "strides.bin")
    torch.save({"a": numbers[:12], "b": numbers[6:18]}, refused / "overlapping.bin")
    torch.save({"state_dict": {"a": numbers}, "epoch": 3}, refused / "training.bin")
    torch.save([numbers], refused / "list.bin")
    torch.save(one.model.norm, refused / "module.bin")
    touched = "touch executed"
    system, evaluate = Call(os.system, touched), Call(builtins.eval, "open('executed', 'w')")
    torch.save({"a": system}, refused / "system.bin")
    torch.save({"a": system}, refused / "system4.bin", pickle_protocol=4)
    torch.save({"a": numbers, "b": evaluate}, refused / "eval.bin")
    nested = Call(getattr, Call(__import__, "os"), "system")
    torch.save({"a": Call(torch._utils._rebuild_tensor_v2, nested, 0, (1,), (1,), False, OrderedDict())}, refused / "nested.bin")
    hooks = Call(torch._utils._rebuild_parameter, numbers, True, OrderedDict(a=system))
    torch.save({"a": hooks}, refused / "hooks.bin")
    with_state = OrderedDict(a=numbers)
    with_state.__dict__["other"] = 1
    torch.save(with_state, refused / "state.bin")
    torch.save({"a": State()}, refused / "object.bin")


def permuted(weights: np.ndarray, n_heads: int) -> np.ndarray:
    """What llama.cpp's converter does to queries and keys."""
    rows, columns = weights.shape
    return weights.reshape(n_heads, 2, rows // n_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def k_blocks(numbers: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Random Q4_K blocks of weights around zero: any integers are valid, so nothing has to be fitted."""
    blocks = numbers.integers(0, 256, (rows, columns // 256, 144), dtype=np.uint8)
    # 6-bit scales near 32 and minima near 32 · 7.5 / 8 times the scale: 16 bytes of d, dmin and packed scales go first.
    blocks[:, :, 4:16] = numbers.integers(28, 36, blocks[:, :, 4:16].shape, dtype=np.uint8)
    step = np.frombuffer(struct.pack("<ee", 2.0**-12, 2.0**-12 * 7.5), dtype=np.uint8)
    blocks[:, :, :4] = step
    return blocks.reshape(rows, -1)


def gguf_file(root: Path) -> None:
    folder = root / "gguf"
    folder.mkdir()
    fields, one = model(32, 256, 2)
    write_json(folder / "config.json", fields)
    writer = gguf.GGUFWriter(folder / "model.gguf", "xverse")
    writer.add_name("tiny")
    writer.add_tensor_data_layout("Meta AI original pth")
    writer.add_context_length(fields["max_position_embeddings"])
    writer.add_embedding_length(fields["hidden_size"])
    writer.add_block_count(fields["num_hidden_layers"])
    writer.add_feed_forward_length(fields["intermediate_size"])
    writer.add_rope_dimension_count(8)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(fields["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"token{idx}" for idx in range(40)])
    writer.add_token_types([1] * 40)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_pad_token_id(1)

    numbers = np.random.default_rng(3)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.XVERSE, 2)
    kinds = {"gate_proj": "Q8_0", "up_proj": "Q4_0", "down_proj": "Q4_K", "v_proj": "F32", "lm_head": "Q8_0"}
    expected, state = {}, one.state_dict()
    for name, tensor in state.items():
        weights = tensor.numpy()
        kind = next((kinds[part] for part in name.split(".") if part in kinds), "F16" if weights.ndim == 2 else "F32")
        number = gguf.GGMLQuantizationType[kind]
        rows = weights
        for part, heads in [("q_proj", 4), ("k_proj", 2)]:
            if part in name:
                rows = permuted(weights, heads)
        stored = k_blocks(numbers, *rows.shape) if kind == "Q4_K" else gguf.quants.quantize(rows, number)
        writer.add_tensor(names.get_name(name, (".weight",)), stored, raw_dtype=number)
        if kind == "F16":
            in_order = weights.astype(np.float16)
            state[name] = torch.from_numpy(in_order.astype(np.float32))
        else:
            in_order = stored
            state[name] = torch.from_numpy(gguf.quants.dequantize(stored, number).astype(np.float32).copy())
        expected[name] = {"dtype": kind, "shape": list(weights.shape), "sha256": hashlib.sha256(in_order.tobytes()).hexdigest()}
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    one.load_state_dict(state)
    write_json(folder / "expected.json", {"tensors": expected, **reference(one)})


def packed(integers: np.ndarray, bits: int) -> np.ndarray:
    """Rows of integers in words, the first in the lowest bits."""
    groups = integers.astype(np.uint32).reshape(-1, 32 // bits, integers.shape[1])
    words = np.zeros((groups.shape[0], groups.shape[2]), dtype=np.uint32)
    for place in range(32 // bits):
        words |= groups[:, place] << np.uint32(place * bits)
    return words.view(np.int32)


def quantised(weights: np.ndarray, bits: int, group: int, symmetric=True, order=None, plain_zeros=False):
    """(out, in) to what GPTQ stores, and what that means; rounding to nearest stands for GPTQ's own choice of integers."""
    inputs = weights.T.astype(np.float32)
    size = group if group > 0 else len(inputs)
    groups = np.arange(len(inputs)) // size
    if order is not None:
        groups = groups[order]
    n_groups = groups.max() + 1
    scales = np.zeros((n_groups, inputs.shape[1]), dtype=np.float16)
    zeros = np.zeros((n_groups, inputs.shape[1]), dtype=np.int64)
    most = 2**bits - 1
    for idx in range(n_groups):
        rows = inputs[groups == idx]
        low, high = rows.min(axis=0), rows.max(axis=0)
        if symmetric:
            high = np.maximum(abs(low), abs(high))
            low = -high
        scales[idx] = (high - low) / most
        zeros[idx] = 2 ** (bits - 1) if symmetric else np.clip(np.round(-low / scales[idx].astype(np.float32)), 1, most)
    steps = scales.astype(np.float32)[groups]
    integers = np.clip(np.round(inputs / steps) + zeros[groups], 0, most).astype(np.int64)
    parts = {
        "qweight": torch.from_numpy(packed(integers, bits).copy()),
        "qzeros": torch.from_numpy(packed((zeros if plain_zeros else zeros - 1).T, bits).T.copy()),
        "scales": torch.from_numpy(scales),
        "g_idx": torch.from_numpy(groups.astype(np.int32)),
    }
    return parts, (steps * (integers - zeros[groups]).astype(np.float32)).T.copy()


def gptq(root: Path) -> None:
    folder = root / "gptq"
    folder.mkdir()
    settings = {"bits": 4, "group_size": 32, "damp_percent": 0.01, "desc_act": False, "static_groups": False, "sym": True}
    settings |= {"true_sequential": True, "model_name_or_path": None, "model_file_base_name": "model"}
    fields, one = model(32, 64, 4)
    write_json(folder / "config.json", fields | {"quantization_config": settings | {"quant_method": "gptq"}})
    write_json(folder / "quantize_config.json", settings)
    tensors, state = {}, one.state_dict()
    for name, tensor in state.items():
        if any(part in name for part in PROJECTIONS):
            parts, meant = quantised(tensor.numpy(), 4, 32)
            tensors |= {name.removesuffix("weight") + part: value for part, value in parts.items()}
            state[name] = torch.from_numpy(meant)
        else:
            tensors[name] = tensor.to(torch.float16)
            state[name] = tensors[name].float()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    one.load_state_dict(state)
    write_json(folder / "expected.json", reference(one))

    numbers = np.random.default_rng(5)
    order = numbers.permutation(64)
    cases = {
        "four_symmetric": (4, 32, {}), "eight_symmetric": (8, 32, {}), "eight_one_group": (8, -1, {}),
        "four_plain_zeros": (4, 64, {"plain_zeros": True}), "four_shifted": (4, 32, {"symmetric": False}),
        "eight_shifted": (8, 32, {"symmetric": False}), "four_shuffled": (4, 32, {"order": order}),
        "four_small_groups": (4, 16, {}),
    }  # fmt: skip
    tensors = {}
    for name, (bits, group, how) in cases.items():
        parts, meant = quantised(numbers.standard_normal((16, 64)), bits, group, **how)
        tensors |= {f"{name}.{part}": value for part, value in parts.items()}
        tensors[f"{name}.expected"] = torch.from_numpy(meant)
    save_file(tensors, folder / "cases.safetensors", {"format": "pt"})


def lora(root: Path) -> None:
    base = root / "lora-base"
    base.mkdir()
    fields, one = model(16, 24, 6)
    write_json(base / "config.json", fields)
    save_file({name: tensor.contiguous() for name, tensor in one.state_dict().items()}, base / "model.safetensors", {"format": "pt"})
    everything = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    cases = {
        "lora": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
        "lora-patterns": dict(
            r=4, lora_alpha=6, target_modules=everything, use_rslora=True,
            rank_pattern={"q_proj": 2, "^model.layers.1.mlp.up_proj": 3}, alpha_pattern={"layers.0.self_attn.k_proj": 32},
        ),
    }  # fmt: skip
    for seed, (name, settings) in enumerate(cases.items()):
        folder = root / name
        torch.manual_seed(seed)
        _, fresh = model(16, 24, 6)
        tuned = get_peft_model(fresh, LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for key, weight in sorted(tuned.named_parameters()):
                if "lora_" in key:
                    weight.copy_(0.2 * torch.randn(weight.shape))
        tuned.save_pretrained(folder)
        config = json.loads((folder / "adapter_config.json").read_text())
        config["target_modules"] = sorted(config["target_modules"])
        write_json(folder / "adapter_config.json", config)
        (folder / "README.md").unlink(missing_ok=True)
        if name == "lora":
            pickled = root / "lora-bin"
            pickled.mkdir()
            write_json(pickled / "adapter_config.json", config)
            # What older versions of PEFT write.
            torch.save(load_file(folder / "adapter_model.safetensors"), pickled / "adapter_model.bin")
        merged = tuned.merge_and_unload()
        before = one.state_dict()
        changed = {key: value.contiguous() for key, value in merged.state_dict().items() if not torch.equal(value, before[key])}
        save_file(changed, folder / "merged.safetensors", {"format": "pt"})
        write_json(folder / "expected.json", reference(merged))


def make(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for part in [pickles, gguf_file, gptq, lora]:
        part(root)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert size <= MOST_BYTES, f"{size} bytes"


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def check(root: Path) -> None:
    with tempfile.TemporaryDirectory() as other:
        make(Path(other))
        kept, made = content(root), content(Path(other))
    wrong = sorted(name for name in kept.keys() | made.keys() if kept.get(name) != made.get(name))
    assert not wrong, f"not what this script makes here: {wrong}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=DATA, help="the folder of the files")
    parser.add_argument("--check", action="store_true", help="only compare; logits can differ on another processor")
    arguments = parser.parse_args()
    (check if arguments.check else make)(arguments.to)
