"""Brings the downloaded data of a benchmark into the one form that evaluate.py reads.

    python examples/evaluation/convert.py mmlu /path/to/data
    python examples/evaluation/convert.py ceval /path/to/ceval-exam
    python examples/evaluation/convert.py agieval /path/to/AGIEval/data/v1
    python examples/evaluation/convert.py gaokao_bench /path/to/GAOKAO-Bench/Data/Objective_Questions
    python examples/evaluation/convert.py gaokao_english /path/to/folder

What is written: evaluation/BENCHMARK/dev/SUBJECT.jsonl with the examples and evaluation/BENCHMARK/test/SUBJECT.jsonl with the
questions, a line each: {"passage", "question", "choices", "answer"}. `passage` may be empty; `choices` is an empty list where the
question's own text has them, from A to D; `answer` is a letter. The subject's name is that of the prompt's first line, and a
subject with a Chinese name is asked in Chinese.

Only questions with one right answer among given ones are taken; how many others there were is said. Where a benchmark has no
examples for its questions the first five questions of each subject are the examples, and are not asked.
"""

import argparse
import csv
import json
import re
import sys
from pathlib import Path

N_EXAMPLES = 5
LETTERS = "ABCDEFG"

CEVAL = {
    "accountant": "注册会计师", "advanced_mathematics": "高等数学", "art_studies": "艺术学", "basic_medicine": "基础医学",
    "business_administration": "工商管理", "chinese_language_and_literature": "中国语言文学", "civil_servant": "公务员",
    "clinical_medicine": "临床医学", "college_chemistry": "大学化学", "college_economics": "大学经济学",
    "college_physics": "大学物理", "college_programming": "大学编程", "computer_architecture": "计算机组成",
    "computer_network": "计算机网络", "discrete_mathematics": "离散数学", "education_science": "教育学",
    "electrical_engineer": "注册电气工程师", "environmental_impact_assessment_engineer": "环境影响评价工程师",
    "fire_engineer": "注册消防工程师", "high_school_biology": "高中生物", "high_school_chemistry": "高中化学",
    "high_school_chinese": "高中语文", "high_school_geography": "高中地理", "high_school_history": "高中历史",
    "high_school_mathematics": "高中数学", "high_school_physics": "高中物理", "high_school_politics": "高中政治",
    "ideological_and_moral_cultivation": "思想道德修养与法律基础", "law": "法学", "legal_professional": "法律职业资格",
    "logic": "逻辑学", "mao_zedong_thought": "毛泽东思想和中国特色社会主义理论体系概论", "marxism": "马克思主义基本原理",
    "metrology_engineer": "注册计量师", "middle_school_biology": "初中生物", "middle_school_chemistry": "初中化学",
    "middle_school_geography": "初中地理", "middle_school_history": "初中历史", "middle_school_mathematics": "初中数学",
    "middle_school_physics": "初中物理", "middle_school_politics": "初中政治", "modern_chinese_history": "近代史纲要",
    "operating_system": "操作系统", "physician": "医师资格", "plant_protection": "植物保护",
    "probability_and_statistics": "概率统计", "professional_tour_guide": "导游资格", "sports_science": "体育学",
    "tax_accountant": "税务师", "teacher_qualification": "教师资格", "urban_and_rural_planner": "注册城乡规划师",
    "veterinary_medicine": "兽医学",
}

AGIEVAL = {
    "gaokao-biology": "高考生物", "gaokao-chemistry": "高考化学", "gaokao-chinese": "高考语文", "gaokao-geography": "高考地理",
    "gaokao-history": "高考历史", "gaokao-mathqa": "高考数学", "gaokao-physics": "高考物理", "jec-qa-ca": "司法案例分析",
    "jec-qa-kd": "司法基础知识", "logiqa-zh": "逻辑推理",
}

# English ones stay as they are.
GAOKAO_BENCH = {
    "Biology_MCQs": "高考生物", "Chemistry_MCQs": "高考化学", "Chinese_Lang_and_Usage_MCQs": "高考语文",
    "Chinese_Modern_Lit": "高考现代文阅读", "Geography_MCQs": "高考地理", "History_MCQs": "高考历史",
    "Math_II_MCQs": "高考文科数学", "Math_I_MCQs": "高考理科数学", "Physics_MCQs": "高考物理",
    "Political_Science_MCQs": "高考政治",
}


def item(question, choices, answer, passage=""):
    """A question in the one form, or None where it has not just one right answer among given ones."""
    answer = "".join(answer) if isinstance(answer, list) else str(answer or "")
    fits = len(answer) == 1 and answer in LETTERS[: len(choices) or 4]
    texts = [str(choice).strip() for choice in choices]
    return {"passage": (passage or "").strip(), "question": question.strip(), "choices": texts, "answer": answer} if fits else None


def rows_of(path, names=None):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, fieldnames=names))


def csv_item(row):
    return item(row["question"], [row[letter] for letter in "ABCD"], row["answer"])


def mmlu(folder):
    """The authors' data.tar: dev/SUBJECT_dev.csv and test/SUBJECT_test.csv, without a line of names."""
    columns = ["question", *"ABCD", "answer"]
    for path in sorted(folder.glob("test/*_test.csv")):
        subject = path.stem.removesuffix("_test")
        dev = rows_of(folder / f"dev/{subject}_dev.csv", columns)
        yield subject.replace("_", " "), [csv_item(row) for row in dev], [csv_item(row) for row in rows_of(path, columns)]


def ceval(folder):
    """The authors' ceval-exam.zip: dev/SUBJECT_dev.csv and val/SUBJECT_val.csv; the answers of its test are not published."""
    for path in sorted(folder.glob("val/*_val.csv")):
        subject = path.stem.removesuffix("_val")
        dev, val = (rows_of(of) for of in (folder / f"dev/{subject}_dev.csv", path))
        yield CEVAL.get(subject, subject), [csv_item(row) for row in dev], [csv_item(row) for row in val]


def agieval(folder):
    """data/v1/SUBJECT.jsonl: {"passage", "question", "options": ["(A)…", …], "label"}."""
    for path in sorted(folder.glob("*.jsonl")):
        items = []
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            choices = [re.sub(r"^\([A-G]\)", "", option) for option in record["options"] or []]
            items.append(item(record["question"], choices, record["label"], record["passage"]) if choices else None)
        yield AGIEVAL.get(path.stem, path.stem.replace("-", " ")), *split(items)


def gaokao_bench(folder):
    """Data/Objective_Questions/YEARS_SUBJECT.json: {"example": [{"question", "answer": ["A"]}]}, choices within the question."""
    for path in sorted(folder.glob("20*.json")):
        records = json.loads(path.read_text(encoding="utf-8"))["example"]
        name = path.stem.split("_", 1)[1]
        items = [item(record["question"], [], record["answer"]) for record in records]
        yield GAOKAO_BENCH.get(name, name.replace("_", " ")), *split(items)


def gaokao_english(folder):
    """One TYPE.jsonl or TYPE.json (a list) a type of question: {"context", "question" or "question_mark", "options", "answer"},
    the answer as text. Open questions have no options and are left out."""
    for path in sorted([*folder.glob("*.jsonl"), *folder.glob("*.json")]):
        text = path.read_text(encoding="utf-8")
        records = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
        items = []
        for record in records:
            options, answer = record.get("options") or [], record.get("answer")
            question = record.get("question") or f"What belongs at {record.get('question_mark')}?"
            letter = LETTERS[options.index(answer)] if options.count(answer) == 1 else None
            items.append(item(question, options, letter, record.get("context")))
        yield f"English {path.stem.replace('-', ' ')}", *split(items)


def split(items):
    """The first five that can be asked, as examples, and all others."""
    taken = [index for index, one in enumerate(items) if one][:N_EXAMPLES]
    return [items[index] for index in taken], [one for index, one in enumerate(items) if index not in taken]


def write(path, items):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in items]
    path.write_text("".join(lines), encoding="utf-8")


def main():
    benchmarks = {of.__name__: of for of in (mmlu, ceval, agieval, gaokao_bench, gaokao_english)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=benchmarks)
    parser.add_argument("folder", type=Path, help="as it was downloaded and unpacked")
    parser.add_argument("--to", type=Path, default=Path("evaluation"), help="default: evaluation")
    arguments = parser.parse_args()
    n_subjects = 0
    for subject, dev, test in benchmarks[arguments.benchmark](arguments.folder):
        examples, questions = ([one for one in items if one] for items in (dev, test))
        others = len(dev) + len(test) - len(examples) - len(questions)
        print(f"{subject}: {len(examples)} examples, {len(questions)} questions, {others} others left out")
        if questions:
            write(arguments.to / arguments.benchmark / "dev" / f"{subject}.jsonl", examples)
            write(arguments.to / arguments.benchmark / "test" / f"{subject}.jsonl", questions)
            n_subjects += 1
    if n_subjects == 0:
        sys.exit(f"error: nothing to ask found in {arguments.folder}\nhint: {benchmarks[arguments.benchmark].__doc__}")


if __name__ == "__main__":
    main()
