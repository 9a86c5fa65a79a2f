"""`make eval` from the downloaded form of the data to the table, on made-up questions."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

RAW = ROOT / "tests/clients/evaluation_data"
BENCHMARKS = ["mmlu", "ceval", "agieval", "gaokao_bench", "gaokao_english"]

SUMS = """The following are multiple choice questions (with answers) about simple sums.

What is 1 + 1?
A. 1
B. 2
C. 3
D. 4
Answer: B

What is 2 + 3?
A. 5
B. 6
C. 7
D. 8
Answer: A

What is 4 + 4?
A. 6
B. 7
C. 8
D. 9
Answer: C

What is 9 - 5?
A. 1
B. 2
C. 3
D. 4
Answer: D

What is 6 - 4?
A. 2
B. 3
C. 4
D. 5
Answer: A

What is 3 + 3?
A. 5
B. 6
C. 7
D. 8
Answer:"""


def convert(benchmark, to):
    command = [sys.executable, "examples/evaluation/convert.py", benchmark, RAW / benchmark, "--to", to]
    return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout


def evaluate(url, data, *flags, token=None, **variables):
    environment = {**os.environ, "URL": url, "DATA": str(data), **variables}
    environment.pop("XVERSE_ACCESS_TOKEN", None)
    if token:
        environment["XVERSE_ACCESS_TOKEN"] = token
    command = ["scripts/eval.sh", *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    for benchmark in BENCHMARKS:
        convert(benchmark, folder)
    return folder


@pytest.fixture(scope="module")
def outcome(url, data, tmp_path_factory):
    """What is printed of all five, and what is kept."""
    file = tmp_path_factory.mktemp("outcome") / "result.json"
    done = evaluate(url, data, "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(file.read_text())


def test_only_questions_with_one_right_answer_are_taken(tmp_path):
    told = "".join(convert(benchmark, tmp_path) for benchmark in BENCHMARKS)
    assert "高考历史: 5 examples, 2 questions, 1 others left out" in told
    assert "高考生物: 5 examples, 2 questions, 1 others left out" in told
    assert "math: 0 examples, 0 questions, 1 others left out" in told
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jsonl")}
    assert "agieval/test/math.jsonl" not in kept
    assert kept >= {f"ceval/{split}/逻辑学.jsonl" for split in ("dev", "test")}


def test_the_table_has_all_five_beside_what_was_published(outcome):
    rows = [line.split(" | ") for line in outcome[0].splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == ["| MMLU", "| C-Eval", "| AGIEval", "| GAOKAO-Bench", "| GAOKAO-English"]
    published = [row[-1].removesuffix(" |") for row in rows[1:]]
    assert published == ["60.2 (INT8 60.3, INT4 55.0)", "53.1", "48.3", "50.7", "80.6"]
    assert [row[1:3] for row in rows[1:]] == [["2", "5"], ["1", "2"], ["2", "4"], ["1", "2"], ["2", "3"]]


def test_the_average_counts_each_subject_once(outcome):
    for score in outcome[1]["benchmarks"]:
        subjects = [subject for subject in outcome[1]["subjects"] if subject["benchmark"] == score["benchmark"]]
        shares = [subject["right"] / subject["asked"] for subject in subjects]
        assert score["mean_of_subjects"] == pytest.approx(100 * sum(shares) / len(shares))
        right, asked = (sum(subject[key] for subject in subjects) for key in ("right", "asked"))
        assert score["of_all_questions"] == pytest.approx(100 * right / asked)


def test_prompts_have_the_form_that_is_stated(outcome):
    prompts = outcome[1]["prompts"]
    assert prompts["simple sums"] == {"prompt": SUMS, "answers": [" A", " B", " C", " D"]}
    chinese = prompts["逻辑学"]["prompt"]
    assert chinese.startswith("以下是中国关于逻辑学考试的单项选择题，请选出其中的正确答案。\n\n所有的猫都是动物")
    assert "\nA. 植物\nB. 动物\nC. 石头\nD. 工具\n答案：B\n\n" in chinese
    assert chinese.endswith("\nA. 星期四\nB. 星期六\nC. 星期日\nD. 星期一\n答案：")
    assert prompts["逻辑学"]["answers"] == ["A", "B", "C", "D"]
    assert prompts["lsat ar"]["answers"] == [" A", " B", " C", " D", " E"]
    assert prompts["高考生物"]["prompt"].endswith("7．人用什么呼吸（ 　　）\nA．手  B．肺  C．脚  D．头发\n答案：")
    assert prompts["English listening"]["answers"] == [" A", " B", " C"]
    assert prompts["English listening"]["prompt"].count("\nAnswer:") == 6


def test_a_limit_a_choice_of_tasks_and_an_access_token(guarded_url, access_token, data, tmp_path):
    done = evaluate(
        guarded_url, data, "--json", str(tmp_path / "result.json"), token=access_token, TASKS="ceval,mmlu", LIMIT="1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    scores = json.loads((tmp_path / "result.json").read_text())["benchmarks"]
    assert [(score["benchmark"], score["asked"]) for score in scores] == [("ceval", 1), ("mmlu", 2)]


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"TASKS": "mmlv"}, "there is no benchmark 'mmlv'"),
        ({"DATA": "/nowhere"}, "has no .jsonl files"),
        ({"URL": "http://127.0.0.1:9"}, "does not answer"),
    ],
)
def test_what_is_wrong_is_said(url, data, variables, told):
    done = evaluate(variables.pop("URL", url), variables.pop("DATA", data), **variables)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert told in done.stderr
