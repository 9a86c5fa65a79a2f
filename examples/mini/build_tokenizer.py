"""Builds the mini model's tokenizer from its dialogues, in the form that XVERSE's own file has.

BPE with byte fallback, Metaspace without a dummy prefix, digits one by one, punctuation apart, no normaliser, no
post-processor. The Metaspace objects are written in the old form (`add_prefix_space` and no `prepend_scheme`), which
readers must repair; so the program's repair is used by its own model.

    python examples/mini/build_tokenizer.py
"""

import json
import re
from collections import Counter

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from mini import MODEL, PREFIX, load_tokenizer, read_dialogues

VOCAB_SIZE = 2048
# A character seen less often is spelled in bytes, like the characters that were never seen.
MIN_CHAR_COUNT = 2
SPECIAL = ["<unk>", "<pad>", "<|startoftext|>", "<|endoftext|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

METASPACE = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": False}
PRE_TOKENIZER = [
    METASPACE,
    {"type": "Digits", "individual_digits": True},
    {"type": "Punctuation", "behavior": "Isolated"},
]

TRICKY = [
    "", " ", "  two  spaces  ", " leading", "trailing ", "\n\n", "\t tab\r\n", "你好，世界！", "😀👩‍👩‍👧🇨🇳", "𠮷野家 鑫龘",
    "naïve café — “quotes”", "العربية हिन्दी ไทย", "a\u0301\u200b\ufeff\u0000", "<0x41> < unk >", "    def f(x):\n        return x",
    "1234567890", "**重点：**后文", "ｆｕｌｌ　ｗｉｄｔｈ", "\U0010ffff\ufffd",
]


def train(texts: list[str]) -> tuple[list[str], list[list[str]]]:
    """Learns single characters and merges; returns the tokens in order of their ids, and the merges."""
    counts = Counter("".join(texts).replace(" ", "▁"))
    rare = "".join(sorted(char for char, n in counts.items() if n < MIN_CHAR_COUNT and not char.isascii()))
    pieces = [part for text in texts for part in re.split(f"[{re.escape(rare)}]", text) if part]

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never"),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Punctuation(behavior="isolated"),
    ])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL) - len(BYTES),
        min_frequency=2,
        max_token_length=12,
        initial_alphabet=[chr(code) for code in range(33, 127)] + ["\n", "\t", "▁"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens, model["merges"]


def tokenizer_file(tokens: list[str], merges: list[list[str]]) -> dict:
    """The whole tokenizer.json."""
    vocab = {token: idx for idx, token in enumerate([*SPECIAL, *BYTES, *tokens])}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocab[token], "content": token, **flags} for token in SPECIAL],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZER},
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, METASPACE]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [" ".join(pair) for pair in merges],
        },
    }


def check(texts: list[str]) -> None:
    """Every text comes back from its ids unchanged, and the file is refused without the repair."""
    tokenizer = load_tokenizer()
    for text in [*texts, *TRICKY]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        back = tokenizer.decode(ids, skip_special_tokens=False)
        assert back == text, f"{text!r} came back as {back!r}"
    try:
        Tokenizer.from_str((MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    except Exception:  # the binding raises a bare Exception
        return
    raise AssertionError("the file was expected to need the Metaspace repair")


def main() -> None:
    texts = [text for dialogue in read_dialogues() for _, text in dialogue.messages]
    tokens, merges = train([*texts, *(prefix for prefix in PREFIX.values() for _ in range(50))])
    MODEL.mkdir(parents=True, exist_ok=True)
    body = json.dumps(tokenizer_file(tokens, merges), ensure_ascii=False, indent=1)
    (MODEL / "tokenizer.json").write_text(body + "\n", encoding="utf-8")
    check(texts)
    n_ids = sum(len(load_tokenizer().encode(text, add_special_tokens=False).ids) for text in texts)
    print(f"{len(SPECIAL) + len(BYTES) + len(tokens)} tokens, {len(merges)} merges; the dialogues are {n_ids} tokens")


if __name__ == "__main__":
    main()
