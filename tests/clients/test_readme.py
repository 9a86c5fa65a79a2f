"""Each `curl` example of the README's section on the API, run as it stands against the server of the tests."""

import json
import os
import re
import subprocess
from pathlib import Path

import prometheus_client.openmetrics.parser as openmetrics
import pytest
from conftest import ROOT

README = Path(os.environ.get("XVERSE_README", ROOT / "README.md"))
SHOWN = "http://127.0.0.1:36000"

# What each call answers is kept apart, and a refusal is a failure.
CURL = 'curl() { command curl --silent --show-error --fail-with-body "$@" | tee "$(mktemp "$ANSWERS/XXXXXX")"; }\n'


def examples():
    section = re.search(r"^## API$(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```sh\n(.*?)^```$", section.group(1), re.MULTILINE | re.DOTALL) if section else []
    return [block for block in blocks if re.search(r"\bcurl\b", block)]


def is_parseable(text):
    """JSON, a stream of it, or counters."""
    lines = [line for line in text.splitlines() if line and not line.startswith(":")]
    if lines and all(line.startswith("data: ") for line in lines):
        return lines[-1] == "data: [DONE]" and all(json.loads(line[6:]) for line in lines[:-1])
    if text.startswith("#"):
        return len(list(openmetrics.text_string_to_metric_families(text))) > 0
    return json.loads(text) is not None


def test_the_readme_has_examples():
    assert examples(), f"no ```sh block with curl under the heading `## API` in {README}"


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.split("\n")[0][:60])
def test_an_example_of_the_readme_works(example, url, tmp_path):
    environment = {**os.environ, "ANSWERS": str(tmp_path)}
    script = CURL + example.replace(SHOWN, url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{example}\n{done.stdout}{done.stderr}"
    answers = [answer.read_text() for answer in tmp_path.iterdir()]
    assert answers
    assert all(is_parseable(answer) for answer in answers), done.stdout
