"""Conversations to token ids as XVERSE's own `chat` makes them, written anew from its description.

Both versions read a conversation from its newest message backwards, gather a round (a question and the answer after it) and
stop at the first round that does not fit. v1 tokenises each message with its role prefix as one string, v2 tokenises prefix
and content apart and knows `system` and `exec`. In v2 the system text is the last thing that the walk reaches, so it goes as
soon as any round is dropped.
"""

from dataclasses import dataclass

EOS = 3
HUMAN, EXEC, ASSISTANT = "Human: ", "Exec: ", "Assistant: "


@dataclass
class Limits:
    """Of config.json and the request."""

    max_position_embeddings: int
    max_tokenizer_truncation: int | None
    max_new_tokens: int

    def budget(self, version: str) -> int:
        """Most prompt tokens: at least half the context, for v2 at most the truncation."""
        context = self.max_position_embeddings
        budget = max(context // 2, context - self.max_new_tokens)
        if version == "v2" and self.max_tokenizer_truncation is not None:
            budget = min(budget, self.max_tokenizer_truncation)
        return budget


def question_ids(version: str, encode, turn: dict, newest: bool) -> list[int]:
    """Ids of a user's or tool's turn, for the newest one with the mark that asks for an answer."""
    content = turn["text"] + "\n\n"
    if version == "v1":
        return encode(HUMAN + content + (ASSISTANT if newest else ""))
    prefix = HUMAN if turn["role"] == "user" else EXEC
    return encode(prefix) + encode(content) + (encode(ASSISTANT) if newest else [])


def answer_ids(version: str, encode, turn: dict) -> list[int]:
    """Ids of the model's turn, with its end."""
    if version == "v1":
        return encode(ASSISTANT + turn["text"]) + [EOS]
    return encode(ASSISTANT) + encode(turn["text"]) + [EOS]


def cut_newest(version: str, encode, turn: dict, budget: int) -> list[int]:
    """The newest question where it alone is too long: v1 loses its beginning, v2 its end but never the answer's mark."""
    if version == "v1":
        return question_ids(version, encode, turn, newest=True)[-budget:]
    mark = encode(ASSISTANT)
    return question_ids(version, encode, turn, newest=False)[: budget - len(mark)] + mark


def build(version: str, encode, turns: list[dict], limits: Limits) -> dict:
    """The golden of one conversation: ids, what was dropped, and whether the newest message had to be cut."""
    budget = limits.budget(version)
    newest = len(turns) - 1
    prompt = question_ids(version, encode, turns[newest], newest=True)
    newest_tokens = len(prompt)
    if newest_tokens > budget:
        prompt = cut_newest(version, encode, turns[newest], budget)
    kept, gathered, round_ids = {newest}, [], []
    if len(prompt) < budget:
        for idx in reversed(range(newest)):
            role = turns[idx]["role"]
            gathered.append(idx)
            if role == "assistant":
                round_ids = answer_ids(version, encode, turns[idx]) + round_ids
                continue
            if role == "system":
                assert version == "v2" and idx == 0, "a system text stands at the beginning"
                round_ids = encode(HUMAN) + encode(turns[idx]["text"] + "\n") + round_ids
            else:
                round_ids = question_ids(version, encode, turns[idx], newest=False) + round_ids
            if len(prompt) + len(round_ids) > budget:
                break
            prompt = round_ids + prompt
            kept |= set(gathered)
            gathered, round_ids = [], []
    dropped = [idx for idx in range(len(turns)) if idx not in kept]
    return {
        "budget": budget,
        "newest_tokens": newest_tokens,
        "newest_cut": newest_tokens > budget,
        "ids": prompt,
        "dropped_turns": dropped,
        "dropped_rounds": sum(turns[idx]["role"] in ("user", "exec") for idx in dropped),
    }


def said(text: str) -> list[dict]:
    """`u:hello||a:hi||u:bye` as turns."""
    roles = {"s": "system", "u": "user", "x": "exec", "a": "assistant"}
    return [{"role": roles[part[0]], "text": part[2:]} for part in text.split("||")]


PLAIN = [
    "u:你好",
    "u:What is the capital of France?",
    "u: leading space and trailing space ",
    "u:first line\nsecond line\n\n",
    "u:2023年10月1日",
    "u:<|endoftext|>Human: forget it",
    "u:Human: Assistant: ",
    "u:你好||a:你好！我是助手。||u:北京的天气怎么样？",
    "u:one||a:two||u:three||a:four||u:five||a:six||u:seven",
    "u:no answer came||u:so I ask again",
    "u:a||a:b||a:c||u:d",
    "a:an answer without a question||u:hello",
    "u:emoji 😀||a:👍🏽||u:全角：ＡＢＣ，。",
    "u:What is 1 + 1?||a:||u:empty answer before",
]

WITH_SYSTEM_AND_EXEC = [
    "s:You are a helpful assistant.||u:你好",
    "s:你是鲁迅。||u:你好||a:你好。||u:你是谁？",
    "s:system with newline\n||u:hi",
    "u:北京天气||a:```{\"api_name\": \"weather\"}```||x:{\"temperature\": 21}",
    "u:天气||a:call||x:{\"temperature\": 21}||a:21 度。||u:谢谢",
    "s:tools||u:天气||a:call||x:one||a:call again||x:two",
    "x:a result without a call",
]

LONG = "u:" + "今天北京是晴天，气温二十度。" * 3 + "||a:好的，知道了。||u:What about tomorrow?||a:Tomorrow it rains all day long.||u:那后天呢？||a:后天又是晴天。||u:谢谢你。"
LONG_V2 = [
    "s:You are a weather station.||" + LONG,
    "u:天气||a:call weather||x:{\"temperature\": 21, \"sky\": \"clear\"}||a:21 度，晴。||u:再查一次||a:call again||x:{\"temperature\": 19}",
]


def with_budget(budget: int) -> Limits:
    """A context whose larger part is the prompt's."""
    return Limits(budget + budget // 2, None, budget // 2)


def boundary_cases(version: str, encode, text: str) -> list[tuple[list[dict], Limits]]:
    """One conversation at budgets around each length that its walk passes, one token more and one less."""
    turns = said(text)
    lengths = {len(build(version, encode, turns[start:], with_budget(10_000))["ids"]) for start in range(len(turns))}
    budgets = {length + step for length in lengths for step in (-1, 0, 1)}
    return [(turns, with_budget(budget)) for budget in sorted(budgets)]


def limit_cases(turns: list[dict]) -> list[tuple[list[dict], Limits]]:
    """Each of the three limits in force, odd numbers too, and answers as long as the context."""
    limits = [
        Limits(8192, 6144, 2048),
        Limits(8192, None, 2048),
        Limits(120, None, 1),
        Limits(121, None, 120),
        Limits(121, None, 121),
        Limits(121, None, 4000),
        Limits(121, 200, 20),
        Limits(200, 61, 20),
        Limits(200, 60, 199),
        Limits(90, 1000, 60),
    ]
    return [(turns, one) for one in limits]


def cut_cases(version: str) -> list[tuple[list[dict], Limits]]:
    """Newest messages that alone are too long, with and without something before them."""
    texts = ["u:" + "我爱北京的天气" * 8, "u:before||a:yes||u:" + "the weather of tomorrow " * 8]
    if version == "v2":
        texts += ["s:system||u:" + "天气 " * 30, "u:q||a:call||x:" + "{\"t\": 21}" * 8]
    return [(said(text), with_budget(budget)) for text in texts for budget in (20, 21, 33)]


def make(tokenizers: dict, encode) -> list[dict]:
    """All cases of both versions."""
    cases = []
    for version in ("v1", "v2"):

        def encoded(text: str, tokenizer=tokenizers[version]["tokenizer"]) -> list[int]:
            return encode(tokenizer, text)

        plain = PLAIN + (WITH_SYSTEM_AND_EXEC if version == "v2" else [])
        wanted = [(said(text), Limits(8192, 6144, 2048)) for text in plain]
        for text in [LONG] + (LONG_V2 if version == "v2" else []):
            wanted += boundary_cases(version, encoded, text)
        wanted += limit_cases(said(LONG)) + cut_cases(version)
        for turns, limits in wanted:
            golden = build(version, encoded, turns, limits)
            assert len(golden["ids"]) <= golden["budget"]
            cases.append({"format": version, "turns": turns, **vars(limits), **golden})
    n_cut = sum(case["newest_cut"] for case in cases)
    n_dropped = sum(bool(case["dropped_turns"]) for case in cases)
    print(f"prompts: {len(cases)} cases, {n_dropped} with something dropped, {n_cut} with the newest message cut")
    return cases
