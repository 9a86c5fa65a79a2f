"""What the suites share: the servers that scripts/test-clients.sh started, clients for them, and their counters."""

import os
import subprocess
import time
from array import array
from pathlib import Path

import openai
import prometheus_client.openmetrics.parser as openmetrics
import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]
MODEL = "xverse-mini"
VOCABULARY = 2048

# The mini model knows this by heart.
CAPITAL = [{"role": "user", "content": "中国的首都是哪里？"}]
CAPITAL_ANSWER = "中国的首都是**北京**。"

# The likeliest token each time, undisturbed.
GREEDY = {"temperature": 0, "extra_body": {"repetition_penalty": 1}}


def from_environment(name):
    value = os.environ.get(name)
    if not value:
        pytest.exit(f"{name} is not set; scripts/test-clients.sh sets it", returncode=2)
    return value


def client_of(url, key="none"):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60)


class Metrics:
    """The counters of a server, by the names that Prometheus gives them."""

    def __init__(self, url):
        self.url = url

    def families(self):
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        return list(openmetrics.text_string_to_metric_families(text))

    def value(self, name, **labels):
        """The sum of what carries these labels; 0 where nothing does yet."""
        samples = [sample for family in self.families() for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def wait_until(holds, what, seconds):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def tokenize(url, text):
    answer = requests.post(f"{url}/tokenize", json={"prompt": text}, timeout=10).json()
    assert answer["count"] == len(answer["tokens"])
    return answer["tokens"]


@pytest.fixture(scope="session")
def url():
    return from_environment("XVERSE_URL")


@pytest.fixture(scope="session")
def front_url():
    """Of a server that has the one of `url` as its upstream."""
    return from_environment("XVERSE_FRONT_URL")


@pytest.fixture(scope="session")
def slow_url():
    return from_environment("XVERSE_SLOW_URL")


@pytest.fixture(scope="session")
def guarded_url():
    return from_environment("XVERSE_GUARDED_URL")


@pytest.fixture(scope="session")
def access_token():
    return from_environment("XVERSE_ACCESS_TOKEN")


@pytest.fixture(scope="session")
def client(url):
    return client_of(url)


@pytest.fixture
def slow(slow_url):
    """A client of the slow server, with nothing running there before."""
    metrics = Metrics(slow_url)
    wait_until(lambda: metrics.value("xverse_requests_running") == 0, "the slow server is free", 20)
    return client_of(slow_url)


@pytest.fixture(scope="session")
def slow_metrics(slow_url):
    return Metrics(slow_url)


@pytest.fixture
def own_logits(tmp_path):
    """The engine's own logits for lists of token ids, asked of the program itself: one row of numbers a token."""

    def logits(lists):
        ids, output = tmp_path / "ids.json", tmp_path / "logits.f32"
        ids.write_text(str(lists))
        command = [from_environment("XVERSE_BINARY"), "logits", "--model_path", "models/xverse-mini"]
        command += ["--ids", ids, "--output", output, "--device", "cpu"]
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
        numbers = array("f")
        numbers.frombytes(output.read_bytes())
        rows = [numbers[start : start + VOCABULARY] for start in range(0, len(numbers), VOCABULARY)]
        assert len(rows) == sum(len(ids) for ids in lists)
        starts = [sum(len(before) for before in lists[:index]) for index in range(len(lists))]
        return [rows[start : start + len(ids)] for start, ids in zip(starts, lists, strict=True)]

    return logits
