"""Texts that are gone on with, tokens, and the log-probabilities of prompts, against the engine's own logits."""

import pytest
import requests
from conftest import MODEL, tokenize
from logprobs import of_tokens

PROMPT = "Human: 中国的首都是哪里？\n\nAssistant: "
GREEDY = {"temperature": 0, "extra_body": {"repetition_penalty": 1}}
# Plain letters, signs of several bytes, a token of the vocabulary's bytes, blanks.
MIXED = "The Moon, 月亮 and 🌒: one  two\n\n三"
TOLERANCE = 1e-4


def complete(client, prompt, **options):
    return client.completions.create(model=MODEL, prompt=prompt, **{**GREEDY, **options})


@pytest.mark.parametrize("text", ["", "Hello", "中国的首都", MIXED])
def test_tokens_of_a_text_give_it_back(url, text):
    tokens = tokenize(url, text)
    assert (len(tokens) > 0) == (text != "")
    assert requests.post(f"{url}/detokenize", json={"tokens": tokens}, timeout=10).json()["prompt"] == text


def test_a_text_is_gone_on_with(client, url):
    answer = complete(client, PROMPT, max_tokens=5)
    choice = answer.choices[0]
    assert (answer.object, answer.id[:5], choice.finish_reason) == ("text_completion", "cmpl-", "length")
    assert "中国的首都是**北京**。".startswith(choice.text)
    assert choice.text != ""
    assert choice.logprobs is None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(tokenize(url, PROMPT)), 5)


def test_ids_and_texts_one_and_several_are_the_same(client, url):
    other = "Human: Hello\n\nAssistant: "
    ids, other_ids = tokenize(url, PROMPT), tokenize(url, other)
    one, two = (complete(client, prompt, max_tokens=8).choices[0].text for prompt in (PROMPT, other))
    assert complete(client, ids, max_tokens=8).choices[0].text == one
    for prompt in ([PROMPT, other], [ids, other_ids]):
        answer = complete(client, prompt, max_tokens=8)
        assert [(choice.index, choice.text) for choice in answer.choices] == [(0, one), (1, two)]
        assert answer.usage.prompt_tokens == len(ids) + len(other_ids)


def test_more_prompts_than_run_at_once_come_back_in_order(client):
    prompts = [f"Human: {number}\n\nAssistant: " for number in range(20)]
    alone = [complete(client, prompt, max_tokens=4).choices[0].text for prompt in prompts]
    together = complete(client, prompts, max_tokens=4).choices
    assert [choice.index for choice in together] == list(range(20))
    assert [choice.text for choice in together] == alone


def test_n_answers_to_each_prompt_are_ordered_by_prompt(client):
    hot = {"temperature": 1.5, "top_p": 1, "seed": 4, "max_tokens": 12}
    texts = [complete(client, prompt, **hot, n=2).choices for prompt in (PROMPT, "Hello")]
    both = complete(client, [PROMPT, "Hello"], **hot, n=2).choices
    assert [choice.text for choice in both] == [choice.text for choices in texts for choice in choices]


def test_a_stream_has_the_same_text(client):
    whole = complete(client, PROMPT, max_tokens=30)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *pieces, last = list(complete(client, PROMPT, max_tokens=30, **options))
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_echo_puts_the_prompt_before_the_text(client):
    bare = complete(client, PROMPT, max_tokens=5).choices[0].text
    assert complete(client, PROMPT, max_tokens=5, echo=True).choices[0].text == PROMPT + bare


def test_echo_with_no_tokens_gives_the_prompt_alone(client, url):
    answer = complete(client, MIXED, max_tokens=0, echo=True, logprobs=0)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason, answer.usage.completion_tokens) == (MIXED, "length", 0)
    assert len(choice.logprobs.tokens) == len(tokenize(url, MIXED))


def test_log_probabilities_of_a_prompt_are_the_engine_s(client, url, own_logits):
    ids = tokenize(url, MIXED)
    told = complete(client, MIXED, max_tokens=0, echo=True, logprobs=3).choices[0].logprobs
    assert told.token_logprobs[0] is None
    assert told.top_logprobs[0] is None
    assert told.token_logprobs[1:] == pytest.approx(of_tokens(own_logits([ids])[0], ids), abs=TOLERANCE)
    for top, logprob in zip(told.top_logprobs[1:], told.token_logprobs[1:], strict=True):
        # The token itself where it is none of the likeliest.
        assert len(top) <= 4
        assert max(top.values()) >= logprob
        assert min(top.values()) <= logprob


def test_log_probabilities_of_what_follows_are_the_engine_s(client, url, own_logits):
    ids = tokenize(url, PROMPT)
    told = complete(client, PROMPT, max_tokens=6, logprobs=1).choices[0].logprobs
    text = "".join(told.tokens)
    all_ids = ids + tokenize(url, text)
    expected = of_tokens(own_logits([all_ids])[0], all_ids)[len(ids) - 1 :]
    assert told.token_logprobs == pytest.approx(expected, abs=TOLERANCE)
    assert [max(top.values()) for top in told.top_logprobs] == told.token_logprobs


def test_prompt_and_answer_are_told_in_one_list(client, url):
    n_prompt = len(tokenize(url, PROMPT))
    both = complete(client, PROMPT, max_tokens=4, echo=True, logprobs=2).choices[0].logprobs
    prompt = complete(client, PROMPT, max_tokens=0, echo=True, logprobs=2).choices[0].logprobs
    assert len(both.tokens) == len(both.token_logprobs) == len(both.top_logprobs) == len(both.text_offset) == n_prompt + 4
    assert both.token_logprobs[:n_prompt] == prompt.token_logprobs


def test_offsets_are_characters_of_the_text(client):
    choice = complete(client, "The 首都 of China", max_tokens=4, echo=True, logprobs=0).choices[0]
    told = choice.logprobs
    assert told.text_offset[0] == 0
    assert told.text_offset == sorted(told.text_offset)
    for token, offset in zip(told.tokens, told.text_offset, strict=True):
        assert choice.text[offset:].startswith(token)


def test_log_probabilities_come_in_a_batch_as_alone(client):
    prompts = ["The Moon", "为什么天空", "Hello world and so on"]
    options = {"max_tokens": 1, "echo": True, "logprobs": 1}
    together = complete(client, prompts, **options).choices
    for prompt, choice in zip(prompts, together, strict=True):
        assert choice.logprobs == complete(client, prompt, **options).choices[0].logprobs
