"""Two small tokenizers built like XVERSE's, and what the Python library makes of texts with them.

BPE over Metaspace without a prefix space, digits one by one, punctuation apart; ids 1, 2, 3 for padding, begin and end.
`v2` has a token for each byte; `v1` has none but normalises with NFKC. The files are written the way XVERSE ships them: with
`add_prefix_space` alone, which today's library refuses, and merges as strings. `repaired` is what a reader must do first.
"""

import copy
import json

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

VOCAB_SIZE = 700
SPECIAL = ["<unk>", "<pad>", "<|startoftext|>", "<|endoftext|>"]
METASPACE = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": False}

CORPUS = [
    "Human: 你好，请介绍一下你自己。\n\nAssistant: 你好！我是一个会说中文的助手。",
    "Human: 北京的天气怎么样？\n\nAssistant: 今天北京是晴天，气温二十度，很适合出门走走。",
    "Human: 请把下面的句子翻译成英文。\n\nAssistant: Please give me the sentence you want to translate.",
    "Human: What is the capital of France?\n\nAssistant: The capital of France is Paris.",
    "Human: Write a short poem about the sea.\n\nAssistant: The sea is wide, the sea is deep, and in its arms the islands sleep.",
    "Exec: {\"temperature\": 21, \"weather\": \"sunny\"}\n\nAssistant: The weather is sunny today, 21 degrees.",
    "Human: You are a helpful assistant that answers in one sentence.\nHuman: 什么是光合作用？\n\nAssistant: ",
    "光合作用是植物把阳光、水和二氧化碳变成养分和氧气的过程。",
    "我们的模型会说中文、英文、日文、俄文和法文，但是中文说得最好。",
    "请问您是哪里人？我是上海人，在北京工作，喜欢读书和旅行。",
    "从前有一座山，山里有一座庙，庙里有一个老和尚在讲故事。",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))",
    "for (let i = 0; i < 10; i++) { console.log(i); }",
    "Il fait beau aujourd'hui, nous allons à la mer avec nos amis.",
    "Привет! Как дела? Сегодня хорошая погода, и мы идём в парк.",
    "こんにちは。今日はいい天気ですね。散歩に行きましょう。",
    "The quick brown fox jumps over the lazy dog, and the dog does not care about the fox.",
    "If there is a train at noon and another one at three, then there are three hours between the trains.",
    "一加一等于二，二加二等于四，三加三等于六，四加四等于八。",
    "不能提供这样的帮助，因为这会伤害别人。请换一个问题。",
    "The answer to the question is that the answers are in the text; read the text and answer the question.",
    "学习语言需要时间，也需要耐心。每天学习一点，时间长了就会看到变化。",
]

TEXTS = [
    "",
    " ",
    "a",
    " a",
    "a ",
    "  two  spaces  ",
    "\n",
    "\n\n",
    "line one\nline two\r\n\ttabbed",
    "Human: ",
    "Assistant: ",
    "Exec: ",
    "Human: 你好\n\nAssistant: ",
    "你好，世界！",
    "全角：ＡＢＣ１２３，。！？",
    "北京 2023 年 10 月 1 日",
    "3.14159 1,000,000 -42",
    "The quick brown fox.",
    "don't isn't we've",
    "Il fait beau aujourd'hui à l'été",
    "Привет, мир!",
    "こんにちは、世界。",
    "한국어도 있습니다",
    "emoji 😀 and 👨‍👩‍👧‍👦 and 🇨🇳",
    "rare 𠮷 龘 characters",
    "combining é vs é and ﬁ ligature ½ ①",
    "def f(x):\n    return x ** 2  # square\n",
    "{\"api_name\": \"weather\", \"parameters\": {\"city\": \"北京\"}}",
    "▁already▁meta",
    "<0x0A> is not a newline",
    "zero\u200bwidth\u00a0nbsp\u3000ideographic",
    "\ufeffbom",
    "\u0000nul",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "我" * 40,
]

# Texts that try to be a special token; people's text is encoded with special tokens switched off.
IMPOSTORS = ["<|endoftext|>", "<pad>", "a<|endoftext|>b", "<|startoftext|>Human: hi", "<unk>", "< |endoftext|>", "<|endoftext|> ", "＜|endoftext|＞"]


def legacy_json(version: str) -> dict:
    """The tokenizer file as XVERSE would ship it."""
    has_bytes = version == "v2"
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)] if has_bytes else []
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    if not has_bytes:
        trained.normalizer = normalizers.NFKC()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never"),
        ]
    )
    wanted = VOCAB_SIZE - len(byte_tokens)
    trainer = trainers.BpeTrainer(vocab_size=wanted, special_tokens=SPECIAL, show_progress=False, min_frequency=1)
    trained.train_from_iterator(CORPUS * 2, trainer)
    model = json.loads(trained.to_str())["model"]
    learnt = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1]) if token not in SPECIAL]
    tokens = SPECIAL + byte_tokens + learnt
    assert len(tokens) == VOCAB_SIZE, len(tokens)
    special = [
        {
            "id": idx,
            "content": SPECIAL[idx],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for idx in (1, 2, 3)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None if has_bytes else {"type": "NFKC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Punctuation", "behavior": "Isolated"},
                {"type": "Digits", "individual_digits": True},
                METASPACE,
            ],
        },
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, METASPACE]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": has_bytes,
            "vocab": {token: idx for idx, token in enumerate(tokens)},
            "merges": [" ".join(pair) for pair in model["merges"]],
        },
    }


def repaired(legacy: dict) -> dict:
    """The same file with what today's library wants: no prefix space, said in its new word."""
    file = copy.deepcopy(legacy)
    for part in [*file["pre_tokenizer"]["pretokenizers"], *file["decoder"]["decoders"]]:
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
    return file


def tokenizer_of(legacy: dict) -> Tokenizer:
    """The library's tokenizer, which takes people's text literally."""
    try:
        Tokenizer.from_str(json.dumps(legacy))
    except Exception:
        pass
    else:
        raise AssertionError("the file as shipped was to be refused; the repair is no longer tested")
    tokenizer = Tokenizer.from_str(json.dumps(repaired(legacy)))
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text, nothing added."""
    return tokenizer.encode(text, add_special_tokens=False).ids


def make() -> dict:
    """Files and golden encodings by version."""
    result = {}
    for version in ("v1", "v2"):
        legacy = legacy_json(version)
        tokenizer = tokenizer_of(legacy)
        cases = []
        for text in TEXTS + IMPOSTORS + CORPUS:
            ids = encode(tokenizer, text)
            assert not {1, 2, 3} & set(ids), text
            decoded = tokenizer.decode(ids, skip_special_tokens=True)
            cases.append({"text": text, "ids": ids, "decoded": decoded})
        with_special = [2, *encode(tokenizer, "你好"), 3, 1, *encode(tokenizer, " world")]
        decode_only = {"ids": with_special, "decoded": tokenizer.decode(with_special, skip_special_tokens=True)}
        result[version] = {"file": legacy, "tokenizer": tokenizer, "cases": cases, "with_special_tokens": decode_only}
        print(f"tokenizer {version}: {tokenizer.get_vocab_size()} tokens, {len(cases)} texts")
    return result
