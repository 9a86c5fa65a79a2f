"""What is refused, as OpenAI's client understands it: by class, status, and the field that is wrong."""

import openai
import pytest
import requests
from conftest import CAPITAL, CAPITAL_ANSWER, GREEDY, MODEL, client_of


def refused(client, expected, messages=CAPITAL, **options):
    with pytest.raises(expected) as caught:
        client.chat.completions.create(**{"model": MODEL, "messages": messages, **options})
    assert caught.value.body.keys() >= {"message", "type", "param", "code"}
    return caught.value


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [TOOL]),
        ("functions", [TOOL["function"]]),
        ("response_format", {"type": "json_object"}),
        ("response_format", SCHEMA),
        ("logit_bias", {"5": 10}),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -0.5),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("modalities", ["text", "audio"]),
        ("best_of", 2),
        ("suffix", "the end"),
    ],
)
def test_what_would_change_the_answer_and_is_not_there_is_refused(client, field, value):
    error = refused(client, openai.BadRequestError, extra_body={field: value})
    assert error.param == field
    assert error.type == "invalid_request_error"
    assert field in error.message


@pytest.mark.parametrize(
    ("field", "value", "bound"),
    [
        ("temperature", -0.1, "0"),
        ("temperature", 100, None),
        ("top_p", 1.5, "1"),
        ("top_k", -5, None),
        ("repetition_penalty", 0, None),
        ("max_tokens", 0, "1"),
        ("max_tokens", 10_000_000, None),
        ("max_completion_tokens", -1, None),
        ("n", 0, "8"),
        ("n", 9, "8"),
        ("top_logprobs", 21, "20"),
        ("seed", 1.5, "64 bits"),
        ("stop", ["a"] * 17, None),
        ("stop", [""], None),
    ],
)
def test_what_is_out_of_bounds_is_named_with_its_bound_and_value(client, field, value, bound):
    extra = {field: value} | ({"logprobs": True} if field == "top_logprobs" else {})
    error = refused(client, openai.BadRequestError, extra_body=extra)
    assert error.param == field
    assert field in error.message
    if not isinstance(value, list):
        assert str(value) in error.message
    if bound is not None:
        assert bound in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", "warm"), ("stream", "yes"), ("n", 1.5), ("stop", 3), ("messages", "hello"), ("max_tokens", True)],
)
def test_a_wrong_type_is_named(client, field, value):
    assert refused(client, openai.BadRequestError, extra_body={field: value}).param == field


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "somebody", "content": "hello"}],
        [{"role": "user"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}],
        [{"role": "assistant", "content": "I was not asked"}],
        [{"role": "user", "content": "a"}, {"role": "system", "content": "too late"}],
    ],
)
def test_messages_that_are_none_are_refused(client, messages):
    assert refused(client, openai.BadRequestError, messages).param.startswith("messages")


def test_another_model_is_not_found(client):
    error = refused(client, openai.NotFoundError, model="gpt-4o")
    assert (error.code, error.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


@pytest.mark.parametrize("token", ["", "wrong"])
def test_without_the_access_token_nothing_is_answered(guarded_url, token):
    client = client_of(guarded_url, token or "none")
    assert refused(client, openai.AuthenticationError).status_code == 401
    with pytest.raises(openai.AuthenticationError):
        client.models.list()
    assert requests.post(f"{guarded_url}/tokenize", json={"prompt": "a"}, timeout=10).status_code == 401


def test_with_the_access_token_everything_is(guarded_url, access_token):
    client = client_of(guarded_url, access_token)
    answer = client.chat.completions.create(model=MODEL, messages=CAPITAL, **GREEDY)
    assert answer.choices[0].message.content == CAPITAL_ANSWER


def test_a_conversation_of_more_than_the_body_s_bytes_is_413(client):
    error = refused(client, openai.APIStatusError, [{"role": "user", "content": "a"}] * 100_000)
    assert error.status_code == 413


@pytest.mark.parametrize("prompt", [[5] * 4097, "a b " * 5000])
def test_a_prompt_beyond_the_context_is_named_so(client, prompt):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=prompt, max_tokens=1)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")


@pytest.mark.parametrize("prompt", ["", [], [1_000_000], [-1], [[]], [["a"]], {"a": 1}])
def test_prompts_that_are_none_are_refused(client, prompt):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=prompt)
    assert caught.value.param.startswith("prompt")


@pytest.mark.parametrize(("field", "value"), [("logprobs", 21), ("logprobs", True), ("best_of", 2), ("suffix", "b")])
def test_fields_of_completions_have_bounds_too(client, field, value):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="a", extra_body={field: value})
    assert caught.value.param == field


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff\xfe"])
def test_bodies_that_are_no_objects_have_the_same_shape(url, body):
    headers = {"content-type": "application/json"}
    for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
        answer = requests.post(f"{url}{path}", data=body, headers=headers, timeout=10)
        assert answer.status_code == 400
        assert answer.json()["error"].keys() >= {"message", "type", "param", "code"}


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/chat/completions", 405), ("GET", "/v1/nothing", 404)])
def test_paths_and_methods_that_are_none_have_the_same_shape(url, method, path, status):
    answer = requests.request(method, f"{url}{path}", timeout=10)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
