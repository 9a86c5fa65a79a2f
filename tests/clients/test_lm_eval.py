"""lm-eval through the API: its log-likelihoods are the engine's own, its generations the model's."""

import lm_eval
import pytest
from conftest import MODEL, ROOT, tokenize
from lm_eval.tasks import TaskManager
from logprobs import of_tokens

TASKS = ROOT / "tests/clients/lm_eval_tasks"
TOLERANCE = 1e-4


def evaluate(model, task, **options):
    """What lm-eval found out: its figures, and what it noted of each question."""
    tasks = TaskManager(include_path=str(TASKS), include_defaults=False)
    found = lm_eval.simple_evaluate(model=model, tasks=[task], task_manager=tasks, bootstrap_iters=0, **options)
    return found["results"][task], sorted(found["samples"][task], key=lambda sample: sample["doc_id"])


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """Where the tasks' files are."""
    monkeypatch.chdir(ROOT)


def completions(url, **arguments):
    address = f"{url}/v1/completions"
    return {"base_url": address, "model": MODEL, "tokenizer_backend": "remote", "max_length": 4096, **arguments}


@pytest.mark.parametrize(("concurrent", "batch"), [(1, 1), (4, 1), (1, 3)])
def test_log_likelihoods_are_the_engine_s(url, own_logits, concurrent, batch):
    arguments = completions(url, num_concurrent=concurrent)
    results, samples = evaluate("local-completions", "xverse_choices", model_args=arguments, batch_size=batch)
    asked = [request for sample in samples for request in sample["arguments"]]
    told = [answer for sample in samples for [answer] in sample["resps"]]
    assert len(asked) == len(told) == 11
    contexts = [len(tokenize(url, context)) for context, _ in asked]
    ids = [tokenize(url, context + answer) for context, answer in asked]
    for logits, all_ids, n_context, (likelihood, is_greedy) in zip(own_logits(ids), ids, contexts, told, strict=True):
        assert likelihood == pytest.approx(sum(of_tokens(logits, all_ids)[n_context - 1 :]), abs=TOLERANCE)
        likeliest = [max(range(len(row)), key=row.__getitem__) for row in logits[n_context - 1 : -1]]
        assert is_greedy == (likeliest == all_ids[n_context:])
    assert {is_greedy for _, is_greedy in told} == {False, True}
    assert results["acc,none"] == right_share(samples)


def right_share(samples):
    """Of questions whose right answer is the likeliest."""
    likelihoods = [[likelihood for [(likelihood, _)] in sample["resps"]] for sample in samples]
    chosen = [max(range(len(of)), key=of.__getitem__) for of in likelihoods]
    return sum(choice == sample["doc"]["right"] for choice, sample in zip(chosen, samples, strict=True)) / len(samples)


@pytest.mark.parametrize("concurrent", [1, 4])
def test_a_generation_task_runs_through_conversations(url, concurrent):
    arguments = {"base_url": f"{url}/v1/chat/completions", "model": MODEL, "num_concurrent": concurrent}
    results, samples = evaluate(
        "local-chat-completions", "xverse_answers",
        model_args=arguments, apply_chat_template=True, gen_kwargs={"repetition_penalty": 1},
    )
    assert [sample["exact_match"] for sample in samples] == [1, 1, 0]
    assert results["exact_match,none"] == pytest.approx(2 / 3)


def test_a_generation_task_runs_through_texts(url):
    _, samples = evaluate("local-completions", "xverse_answers", model_args=completions(url), limit=1)
    assert isinstance(samples[0]["resps"][0][0], str)
