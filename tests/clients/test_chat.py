"""Conversations through OpenAI's client."""

import asyncio
import json

import openai
import pytest
import requests
from conftest import CAPITAL, CAPITAL_ANSWER, GREEDY, MODEL, tokenize

POEM = [{"role": "user", "content": "Write a short poem about the first snow."}]
# Nothing that the model knows, and hot enough that two seeds differ.
SEA = [{"role": "user", "content": "Tell me of the sea"}]
HOT = {"temperature": 2, "top_p": 1, "extra_body": {"top_k": 0, "repetition_penalty": 1}}
SKY = [
    {"role": "user", "content": "为什么天空是蓝色的？"},
    {
        "role": "assistant",
        "content": "因为空气会**散射**阳光。\n\n阳光由不同颜色的光组成。光穿过大气时，会碰到氮气和氧气分子，波长短的蓝光比波长长的红光更容易被散射到"
        "四面八方，散射的强度大约与波长的四次方成反比：$I \\propto 1/\\lambda^4$。所以我们抬头时，从各个方向看到的多是蓝光。",
    },
    {"role": "user", "content": "那傍晚为什么是红色的？"},
]
SKY_ANSWER = "傍晚太阳很低，阳光要穿过更厚的大气。蓝光在路上几乎都被散射走了，剩下的红光和橙光直接到达我们的眼睛，于是就有了晚霞。"
TOKYO = """You can use these tools:
[{"api_name": "get_time", "parameters": {"city": "name of the city"}}]

What time is it in Tokyo?"""
TOKYO_CALL = """<|startofthink|>```JSON
{"api_name": "get_time", "parameters": {"city": "Tokyo"}}
```<|endofthink|>"""


def ask(client, messages, **options):
    return client.chat.completions.create(model=MODEL, messages=messages, **{**GREEDY, **options})


def text_of(client, messages, **options):
    return ask(client, messages, **options).choices[0].message.content


def test_models_lists_the_one_model(client):
    assert [model.id for model in client.models.list().data] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"


def test_an_answer_has_openai_s_shape(client):
    answer = ask(client, CAPITAL)
    choice = answer.choices[0]
    assert (answer.object, answer.model, answer.id[:9]) == ("chat.completion", MODEL, "chatcmpl-")
    assert (choice.index, choice.message.role, choice.message.content) == (0, "assistant", CAPITAL_ANSWER)
    assert (choice.finish_reason, choice.logprobs) == ("stop", None)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens > 0


def test_usage_counts_the_tokens_of_the_answer(client, url):
    assert ask(client, CAPITAL).usage.completion_tokens == len(tokenize(url, CAPITAL_ANSWER))


def test_a_stream_has_the_same_text_and_its_usage_last(client):
    whole = ask(client, CAPITAL)
    chunks = list(ask(client, CAPITAL, stream=True, stream_options={"include_usage": True}))
    *pieces, last = chunks
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(pieces) > 3
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == CAPITAL_ANSWER
    assert [piece.choices[0].finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert all(piece.usage is None for piece in pieces)
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens


def test_a_stream_without_usage_counts_nothing(client):
    assert all(chunk.usage is None and chunk.choices for chunk in ask(client, CAPITAL, stream=True))


def test_the_bytes_of_a_stream_are_events_and_end_with_done(url):
    body = {"model": MODEL, "messages": CAPITAL, "stream": True}
    answer = requests.post(f"{url}/v1/chat/completions", json=body, stream=True, timeout=30)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line for line in answer.iter_lines(decode_unicode=True) if line and not line.startswith(":")]
    assert all(event.startswith("data: ") for event in events)
    assert events[-1] == "data: [DONE]"
    assert all(json.loads(event[6:])["choices"] for event in events[:-1])


def test_a_conversation_of_several_turns_is_gone_on_with(client):
    assert text_of(client, SKY) == SKY_ANSWER


def test_a_system_message_counts(client):
    question = [{"role": "user", "content": "为什么天空是蓝色的？"}]
    system = [{"role": "system", "content": "请用不超过十个字回答。"}]
    assert text_of(client, system + question) == "空气散射蓝光更多。"
    assert text_of(client, question) == SKY[1]["content"]


def test_a_tool_s_result_is_the_model_s_exec_turn(client):
    messages = [
        {"role": "user", "content": TOKYO},
        {"role": "assistant", "content": TOKYO_CALL},
        {"role": "tool", "tool_call_id": "any", "content": '{"city": "Tokyo", "time": "09:30"}'},
    ]
    assert text_of(client, messages[:1]) == TOKYO_CALL
    assert text_of(client, messages) == "It is 09:30 in Tokyo now."


def test_content_may_be_parts_of_text(client):
    parts = [{"type": "text", "text": "中国的首都"}, {"type": "text", "text": "是哪里？"}]
    assert text_of(client, [{"role": "user", "content": parts}]) == CAPITAL_ANSWER


def test_n_answers_are_drawn_apart_and_repeat_with_their_seed(client):
    first, again = (ask(client, SEA, **HOT, n=2, seed=7, max_tokens=40) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1]
    assert texts[0] != texts[1]
    assert [choice.message.content for choice in again.choices] == texts


def test_n_answers_stream_side_by_side(client):
    whole = ask(client, SEA, **HOT, n=3, seed=7, max_tokens=20)
    texts = ["", "", ""]
    for chunk in ask(client, SEA, **HOT, n=3, seed=7, max_tokens=20, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


def test_a_seed_repeats_an_answer_and_another_does_not(client):
    seven, again, eight = (text_of(client, SEA, **HOT, seed=seed, max_tokens=60) for seed in (7, 7, 8))
    assert seven == again != eight
    # As OpenAI has them, of 64 bits and with a sign.
    least, below = (text_of(client, SEA, **HOT, seed=seed, max_tokens=60) for seed in (-(2**63), -1))
    assert least != below


def test_answers_without_a_seed_differ(client):
    assert len({text_of(client, SEA, **HOT, max_tokens=60) for _ in range(4)}) > 1


def test_temperature_zero_is_the_same_every_time(client):
    for penalty in (1, 1.1):
        answers = {text_of(client, POEM, extra_body={"repetition_penalty": penalty}) for _ in range(5)}
        assert len(answers) == 1


def test_temperature_zero_keeps_the_repetition_penalty(client):
    plain = text_of(client, SKY[:1], max_tokens=100)
    assert text_of(client, SKY[:1], max_tokens=100, extra_body={"repetition_penalty": 2}) != plain


def test_omitted_fields_are_the_checkpoint_s(client):
    given = {"temperature": 0.5, "top_p": 0.85, "extra_body": {"top_k": 30, "repetition_penalty": 1.1}}
    bare = client.chat.completions.create(model=MODEL, messages=POEM, seed=3)
    full = client.chat.completions.create(model=MODEL, messages=POEM, seed=3, **given)
    assert bare.choices[0].message.content == full.choices[0].message.content


@pytest.mark.parametrize("stop", ["北京", ["没有", "北京"], ["京**"]])
def test_a_stop_string_ends_an_answer_and_is_not_in_it(client, stop):
    choice = ask(client, CAPITAL, stop=stop).choices[0]
    expected = CAPITAL_ANSWER.split("北京")[0] if "京**" not in stop else CAPITAL_ANSWER.split("京**")[0]
    assert (choice.message.content, choice.finish_reason) == (expected, "stop")
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, CAPITAL, stop=stop, stream=True))
    assert streamed == expected


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_ends_an_answer(client, name):
    answer = ask(client, CAPITAL, **{name: 3})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3
    assert CAPITAL_ANSWER.startswith(answer.choices[0].message.content)


def test_ignore_eos_goes_on_to_the_last_token(client):
    answer = ask(client, CAPITAL, max_tokens=60, extra_body={"ignore_eos": True, "repetition_penalty": 1})
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (60, "length")
    assert answer.choices[0].message.content.startswith(CAPITAL_ANSWER)


def test_log_probabilities_stand_beside_each_token(client):
    answer = ask(client, CAPITAL, logprobs=True, top_logprobs=5)
    content = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in content).startswith(CAPITAL_ANSWER)
    assert bytes(byte for entry in content for byte in entry.bytes or []).decode().startswith(CAPITAL_ANSWER)
    for entry in content:
        likelihoods = [top.logprob for top in entry.top_logprobs]
        assert len(likelihoods) == 5
        assert likelihoods == sorted(likelihoods, reverse=True)
        # Greedy without a penalty: the drawn one is the likeliest.
        assert entry.logprob == likelihoods[0] <= 0
        assert entry.token == entry.top_logprobs[0].token


def test_log_probabilities_stream_with_their_tokens(client):
    whole = ask(client, CAPITAL, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    chunks = ask(client, CAPITAL, logprobs=True, top_logprobs=2, stream=True)
    streamed = [entry for chunk in chunks if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content]
    assert streamed == whole


def test_log_probabilities_do_not_depend_on_how_tokens_are_drawn(client):
    def first(**options):
        return ask(client, SEA, logprobs=True, top_logprobs=20, max_tokens=1, **options).choices[0].logprobs.content[0]

    plain, hot = first(), first(**HOT, seed=5)
    assert hot.top_logprobs == plain.top_logprobs


def test_logprobs_without_top_tell_the_drawn_token_alone(client):
    content = ask(client, CAPITAL, logprobs=True).choices[0].logprobs.content
    assert content
    assert all(entry.top_logprobs == [] for entry in content)


def test_unknown_fields_are_passed_over(client):
    extra = {"repetition_penalty": 1, "invented": {"a": 1}}
    assert text_of(client, CAPITAL, user="somebody", metadata={"a": "b"}, extra_body=extra) == CAPITAL_ANSWER


def test_fields_that_say_the_default_are_taken(client):
    extra = {"repetition_penalty": 1, "logit_bias": {}, "tools": []}
    options = {"presence_penalty": 0, "frequency_penalty": 0, "response_format": {"type": "text"}, "n": 1}
    assert text_of(client, CAPITAL, **options, extra_body=extra) == CAPITAL_ANSWER


def test_twenty_streams_at_once_say_the_same(url):
    async def one(client):
        chunks = await client.chat.completions.create(model=MODEL, messages=SKY, stream=True, **GREEDY)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(one(client) for _ in range(20)))

    assert asyncio.run(all_of_them()) == [SKY_ANSWER] * 20


def test_the_asynchronous_client_gets_answers_and_lists(url):
    async def both():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            answer = await client.chat.completions.create(model=MODEL, messages=CAPITAL, **GREEDY)
            return answer.choices[0].message.content, [model.id async for model in client.models.list()]

    assert asyncio.run(both()) == (CAPITAL_ANSWER, [MODEL])


def test_a_stream_can_be_taken_in_with_the_client_s_helper(client):
    """`with_raw_response` and `with` are how programs reach headers and close early."""
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=CAPITAL, **GREEDY)
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().choices[0].message.content == CAPITAL_ANSWER
