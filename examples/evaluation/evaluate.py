"""Asks the questions of benchmarks through a server's API with lm-eval, and prints what came out beside what was published.

Each question stands after five examples; of the letters that may follow, the one that the model finds likeliest is its answer, read
from log-probabilities (`/v1/completions` with `echo`). english.yaml and chinese.yaml have the words of the prompts, convert.py
makes the data. `make eval` runs this; it needs what tests/clients/requirements.txt lists.

    python examples/evaluation/evaluate.py --url http://127.0.0.1:36000 --data evaluation --tasks mmlu,ceval --limit 20
"""

import argparse
import json
import math
import os
import re
import sys
from pathlib import Path

import datasets
import lm_eval
import requests
import yaml
from lm_eval.tasks import TaskManager

HERE = Path(__file__).resolve().parent
N_EXAMPLES = 5

# Of XVERSE-13B-Chat, as its makers publish them; of quantised ones only MMLU is.
BENCHMARKS = {
    "mmlu": ("MMLU", "60.2 (INT8 60.3, INT4 55.0)"),
    "ceval": ("C-Eval", "53.1"),
    "agieval": ("AGIEval", "48.3"),
    "gaokao_bench": ("GAOKAO-Bench", "50.7"),
    "gaokao_english": ("GAOKAO-English", "80.6"),
}


class Problem(Exception):
    """What a person has to mend."""


def questions(path):
    items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for one in items:
        one["letters"] = list("ABCDEFG"[: len(one["choices"]) or 4])
        one["right"] = one["letters"].index(one["answer"])
    return items


def task(name, subject, folder):
    """What lm-eval is to ask of one subject."""
    examples = questions(folder / "dev" / f"{subject}.jsonl")[:N_EXAMPLES]
    if len(examples) < N_EXAMPLES:
        raise Problem(f"{folder}/dev/{subject}.jsonl has {len(examples)} examples, expected {N_EXAMPLES}")
    splits = {"dev": examples, "test": questions(folder / "test" / f"{subject}.jsonl")}
    language = "chinese" if re.search(r"[\u4e00-\u9fff]", subject) else "english"
    words = yaml.safe_load((HERE / f"{language}.yaml").read_text(encoding="utf-8"))
    return {
        **words,
        "task": name,
        "description": words["description"].format(subject=subject),
        "custom_dataset": lambda **_: {split: datasets.Dataset.from_list(items) for split, items in splits.items()},
        "test_split": "test",
        "fewshot_split": "dev",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": N_EXAMPLES,
        "output_type": "multiple_choice",
        "metric_list": [{"metric": "acc"}],
    }


def tasks(data, wanted):
    """By a name of letters and digits that lm-eval takes: the benchmark, the subject, what to ask."""
    found = {}
    for benchmark in wanted:
        if benchmark not in BENCHMARKS:
            raise Problem(f"there is no benchmark {benchmark!r}, expected some of {', '.join(BENCHMARKS)}")
        subjects = sorted(path.stem for path in (data / benchmark / "test").glob("*.jsonl"))
        if not subjects:
            raise Problem(f"{data / benchmark}/test has no .jsonl files\nhint: python examples/evaluation/convert.py --help")
        for index, subject in enumerate(subjects):
            name = f"{benchmark}_{index}"
            found[name] = (benchmark, subject, task(name, subject, data / benchmark))
    return found


def ask(arguments, token, found):
    """Questions and answers of every task, as lm-eval notes them, and the model's name."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = requests.get(f"{arguments.url}/v1/models", headers=headers, timeout=30)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise Problem(f"{arguments.url} does not answer: {error}\nhint: start the server, or say --url") from error
    model = answer.json()["data"][0]
    settings = {
        "base_url": f"{arguments.url}/v1/completions",
        "model": model["id"],
        "tokenizer_backend": "remote",
        "auth_token": token,
        "header": headers,
        "max_length": model.get("max_model_len") or 8192,
        "num_concurrent": arguments.concurrent,
        "max_retries": 10,
        "timeout": 3600,
    }
    results = lm_eval.simple_evaluate(
        model="local-completions",
        model_args=settings,
        tasks=[config for _, _, config in found.values()],
        task_manager=TaskManager(include_defaults=False),
        limit=arguments.limit,
        bootstrap_iters=0,
    )
    return results["samples"], model["id"]


def subject_scores(found, samples):
    return [
        {
            "benchmark": benchmark,
            "subject": subject,
            "right": int(sum(sample["acc"] for sample in samples[name])),
            "asked": len(samples[name]),
        }
        for name, (benchmark, subject, _) in found.items()
    ]


def benchmark_scores(scores):
    """The mean over subjects, each counted once, and the share over all questions; both in percent."""
    for benchmark in dict.fromkeys(score["benchmark"] for score in scores):
        of = [score for score in scores if score["benchmark"] == benchmark]
        right, asked = sum(score["right"] for score in of), sum(score["asked"] for score in of)
        share = right / asked
        yield {
            "benchmark": benchmark,
            "subjects": len(of),
            "asked": asked,
            "mean_of_subjects": 100 * sum(score["right"] / score["asked"] for score in of) / len(of),
            "of_all_questions": 100 * share,
            "standard_error": 100 * math.sqrt(share * (1 - share) / asked),
        }


def table(model, benchmarks):
    yield f"| {model}, five examples | subjects | questions | mean of subjects | of all questions | XVERSE-13B-Chat, published |"
    yield "|---|---|---|---|---|---|"
    for score in benchmarks:
        title, published = BENCHMARKS[score["benchmark"]]
        of_all = f"{score['of_all_questions']:.1f} ± {score['standard_error']:.1f}"
        cells = [title, score["subjects"], score["asked"], f"{score['mean_of_subjects']:.1f}", of_all, published]
        yield "| " + " | ".join(map(str, cells)) + " |"


def first_prompts(found, samples):
    """What the model read of the first question of each subject, and what was to follow."""
    firsts = {name: samples[name][0] for name in found}
    return {
        found[name][1]: {"prompt": first["arguments"][0][0], "answers": [answer for _, answer in first["arguments"]]}
        for name, first in firsts.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:36000", type=lambda url: url.rstrip("/"))
    parser.add_argument("--data", type=Path, default=Path("evaluation"), help="what convert.py wrote")
    parser.add_argument("--tasks", default=",".join(BENCHMARKS), help="default: all five")
    parser.add_argument("--limit", type=int, help="questions of each subject, for trying")
    parser.add_argument("--concurrent", type=int, default=8, help="requests at once")
    parser.add_argument("--json", type=Path, help="where to keep the figures, and a prompt of each subject")
    arguments = parser.parse_args()
    token = os.environ.get("XVERSE_ACCESS_TOKEN") or None
    try:
        found = tasks(arguments.data, arguments.tasks.split(","))
        samples, model = ask(arguments, token, found)
    except Problem as problem:
        sys.exit(f"error: {problem}")
    scores = subject_scores(found, samples)
    benchmarks = list(benchmark_scores(scores))
    for score in scores:
        print(f"{BENCHMARKS[score['benchmark']][0]}, {score['subject']}: {score['right']} of {score['asked']}")
    print(*table(model, benchmarks), sep="\n")
    if arguments.json:
        report = {
            "model": model,
            "examples": N_EXAMPLES,
            "limit": arguments.limit,
            "benchmarks": benchmarks,
            "subjects": scores,
            "prompts": first_prompts(found, samples),
        }
        arguments.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
