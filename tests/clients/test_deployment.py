"""What is in examples/deployment fits the server: the dashboard asks only for what `/metrics` has, systemd takes the unit, and the
images' check works. The images themselves are not built here."""

import json
import re
import shutil
import subprocess

import openai
import pytest
from conftest import CAPITAL, GREEDY, MODEL, ROOT, Metrics, wait_until

DEPLOYMENT = ROOT / "examples/deployment"
DASHBOARD = DEPLOYMENT / "grafana-dashboard.json"
DOCKERFILES = ["Dockerfile", "Dockerfile.cuda"]
NAME = re.compile(r"\bxverse_\w+")


def names_asked_for():
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    variables = [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    return {name for query in [*queries, *map(str, variables)] for name in NAME.findall(query)}


def names_there(families):
    """As Prometheus keeps them: counters end in _total, histograms are three."""
    ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
    return {family.name + end for family in families for end in ends[family.type]}


@pytest.fixture
def metrics(client, url):
    """Of a server where something of each kind has happened: what has labels is there from then on."""
    client.chat.completions.create(model=MODEL, messages=CAPITAL, **GREEDY)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="another", messages=CAPITAL)
    endless = {"max_tokens": 1000, "extra_body": {"ignore_eos": True}}
    client.chat.completions.create(model=MODEL, messages=CAPITAL, stream=True, **endless).close()
    metrics = Metrics(url)
    wait_until(lambda: metrics.value("xverse_cancels_total") > 0, "the stream that was closed is counted", 5)
    return metrics


@pytest.fixture
def families(metrics, front_url):
    """All that a server counts, those before an upstream included."""
    return metrics.families() + Metrics(front_url).families()


def test_every_name_is_one_of_the_server_s(families):
    asked, there = names_asked_for(), names_there(families)
    assert len(asked) > 15
    assert asked <= there, asked - there


def test_every_number_of_the_server_s_is_shown(families):
    families = {family.name for family in families}
    shown = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in names_asked_for()}
    assert families - shown == set()


def test_labels_that_are_asked_for_are_there(metrics):
    assert metrics.value("xverse_generations_total", source="api", reason="end_of_text") > 0
    assert metrics.value("xverse_cancels_total", cause="client_gone") > 0
    assert metrics.value("xverse_refusals_total") > 0
    assert metrics.value("xverse_first_token_seconds_count") > 0


def test_the_dashboard_can_be_imported():
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert dashboard["id"] is None
    variables = {variable["name"]: variable["type"] for variable in dashboard["templating"]["list"]}
    assert variables["datasource"] == "datasource"
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_takes_the_unit(tmp_path):
    unit = (DEPLOYMENT / "xverse-chat.service").read_text()
    assert unit.count("/opt/xverse-chat/xverse-chat ") == 1
    (tmp_path / "xverse-chat.service").write_text(unit.replace("/opt/xverse-chat/xverse-chat ", "/bin/true "))
    done = subprocess.run(["systemd-analyze", "verify", tmp_path / "xverse-chat.service"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_s_check_says_whether_the_server_is_ready(url, name):
    check = re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", (DEPLOYMENT / name).read_text(), re.MULTILINE).group(1)
    for port, status in ((url.rsplit(":", 1)[1], 0), ("9", 1)):
        assert subprocess.run(json.loads(check.replace("36000", port)), capture_output=True).returncode == status


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_gets_what_the_server_reads(name):
    """Each part by its path in the repository; the binary and the page are made while the image is built."""
    copied = re.findall(r"^COPY --from=build /build/(\S+)", (DEPLOYMENT / name).read_text(), re.MULTILINE)
    assert copied == ["target/release/xverse-chat", "Leptos.toml", "target/site", "models/xverse-mini"]
