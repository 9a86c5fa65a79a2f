"""Clients that go away, and a queue that is full, on a server whose steps take twenty milliseconds and that has room for six."""

import asyncio
import contextlib

import openai
import pytest
from conftest import CAPITAL, MODEL, wait_until

ENDLESS = {"max_tokens": 1000, "temperature": 0, "extra_body": {"ignore_eos": True}}


def stream(client):
    return client.chat.completions.create(model=MODEL, messages=CAPITAL, stream=True, **ENDLESS)


def is_free(metrics):
    return metrics.value("xverse_requests_running") == 0 and metrics.value("xverse_requests_waiting") == 0


def test_closing_a_stream_ends_its_work(slow, slow_metrics):
    gone = slow_metrics.value("xverse_cancels_total", cause="client_gone")
    chunks = stream(slow)
    next(iter(chunks))
    assert slow_metrics.value("xverse_requests_running") == 1
    chunks.close()
    wait_until(lambda: is_free(slow_metrics), "nothing runs after the stream was closed", 2)
    assert slow_metrics.value("xverse_cancels_total", cause="client_gone") == gone + 1


def test_giving_up_on_a_whole_answer_ends_its_work(slow, slow_metrics):
    with pytest.raises(openai.APITimeoutError):
        slow.with_options(timeout=0.5).chat.completions.create(model=MODEL, messages=CAPITAL, **ENDLESS)
    wait_until(lambda: is_free(slow_metrics), "nothing runs after the client gave up", 2)


def test_closing_ends_every_one_of_n_answers(slow, slow_metrics):
    chunks = slow.completions.create(model=MODEL, prompt="Hello", stream=True, n=3, **ENDLESS)
    next(iter(chunks))
    wait_until(lambda: slow_metrics.value("xverse_requests_running") == 3, "three run", 2)
    chunks.close()
    wait_until(lambda: is_free(slow_metrics), "nothing runs after the stream was closed", 2)


def test_a_cancelled_task_ends_its_work(slow, slow_url, slow_metrics):
    async def cancelled():
        async with openai.AsyncOpenAI(base_url=f"{slow_url}/v1", api_key="none", max_retries=0) as client:
            chunks = await client.chat.completions.create(model=MODEL, messages=CAPITAL, stream=True, **ENDLESS)
            async for _ in chunks:
                break
            task = asyncio.ensure_future(client.chat.completions.create(model=MODEL, messages=CAPITAL, **ENDLESS))
            await asyncio.sleep(0.3)
            task.cancel()
            await chunks.close()

    asyncio.run(cancelled())
    wait_until(lambda: is_free(slow_metrics), "nothing runs after the task was cancelled", 2)


@contextlib.contextmanager
def full(client, metrics, **options):
    """Four run and two wait."""
    with contextlib.ExitStack() as taken:
        for n in (4, 2):
            taken.enter_context(client.completions.create(model=MODEL, prompt="Hello", stream=True, n=n, **options))
        wait_until(lambda: metrics.value("xverse_requests_waiting") == 2, "two wait", 5)
        yield


def test_a_full_queue_is_refused_with_a_time_to_wait_and_taken_when_there_is_room(slow, slow_metrics):
    with full(slow, slow_metrics, **ENDLESS):
        with pytest.raises(openai.APIStatusError) as caught:
            stream(slow)
        assert caught.value.status_code in (429, 503)
        assert (caught.value.code, caught.value.body.keys()) == ("queue_full", {"message", "type", "param", "code"})
        assert int(caught.value.response.headers["retry-after"]) >= 1
    wait_until(lambda: is_free(slow_metrics), "there is room again", 2)
    stream(slow).close()


def test_the_client_s_own_retries_get_through(slow, slow_metrics):
    with full(slow, slow_metrics, max_tokens=40, extra_body={"ignore_eos": True}):
        patient = slow.with_options(max_retries=3)
        answer = patient.chat.completions.create(model=MODEL, messages=CAPITAL, max_tokens=4)
        assert answer.choices[0].finish_reason == "length"
