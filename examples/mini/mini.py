"""What the mini model's scripts share: the dialogues, the tokenizer's repair and the prompt format.

A dialogue file holds dialogues as plain text. `=== name language` opens one; `[user]`, `[assistant]`, `[exec]` and
`[system]`, alone on a line, open its messages. Line breaks around a message are dropped, those inside are kept.

This module does not know about training. Invariant: a prompt made here has the same ids as one made by the program.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "models" / "xverse-mini"

PAD, BOS, EOS = 1, 2, 3
PREFIX = {"user": "Human: ", "exec": "Exec: ", "assistant": "Assistant: "}


@dataclass
class Dialogue:
    """A named conversation; `messages` are (role, text) in order, the last one the model's."""

    name: str
    lang: str
    messages: list[tuple[str, str]] = field(default_factory=list)

    @property
    def has_system(self) -> bool:
        return self.messages[0][0] == "system"

    @property
    def first_user(self) -> str:
        return next(text for role, text in self.messages if role == "user")


def read_dialogues(folder: Path = HERE / "dialogues") -> list[Dialogue]:
    """Reads every dialogue, in the order of the files; raises ValueError where one is malformed."""
    found = []
    for path in sorted(folder.glob("*.txt")):
        for block in re.split(r"^=== ", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
            head, body = block.split("\n", 1)
            name, lang = head.split()
            parts = re.split(r"^\[(user|assistant|exec|system)\]$", body, flags=re.M)[1:]
            messages = [(role, text.strip("\n")) for role, text in zip(parts[::2], parts[1::2])]
            check_roles(name, messages)
            found.append(Dialogue(name, lang, messages))
    names = [d.name for d in found]
    if len(set(names)) != len(names):
        raise ValueError(f"two dialogues share a name: {sorted(n for n in names if names.count(n) > 1)}")
    return found


def check_roles(name: str, messages: list[tuple[str, str]]) -> None:
    """A system message only opens; then question (user or exec) and answer alternate, and an answer comes last."""
    roles = [role for role, _ in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    well_formed = (
        len(turns) % 2 == 0
        and all(role in ("user", "exec") for role in turns[::2])
        and all(role == "assistant" for role in turns[1::2])
        and all(text for _, text in messages)
    )
    if not well_formed:
        raise ValueError(f"dialogue {name}: found the roles {roles}")


def repaired(tokenizer_json: str) -> str:
    """Gives every Metaspace of the old form the `prepend_scheme` that newer readers ask for."""

    def walk(node):
        if isinstance(node, dict):
            if node.get("type") == "Metaspace" and node.get("add_prefix_space") is False:
                node.setdefault("prepend_scheme", "never")
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    tree = json.loads(tokenizer_json)
    walk(tree)
    return json.dumps(tree, ensure_ascii=False)


def load_tokenizer(folder: Path = MODEL) -> Tokenizer:
    return Tokenizer.from_str(repaired((folder / "tokenizer.json").read_text(encoding="utf-8")))


def encode_messages(tokenizer: Tokenizer, messages: list[tuple[str, str]]) -> tuple[list[int], list[bool]]:
    """Prompt format v2: ids, and for each id whether the model writes it (answers and their end mark)."""
    ids, written = [], []

    def add(piece: list[int], by_model: bool) -> None:
        ids.extend(piece)
        written.extend([by_model] * len(piece))

    def text_ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    for role, text in messages:
        if role == "system":
            add(text_ids(f"Human: {text}\n"), False)
        elif role == "assistant":
            add(text_ids(PREFIX[role]), False)
            add([*text_ids(text), EOS], True)
        else:
            add(text_ids(PREFIX[role]), False)
            add(text_ids(f"{text}\n\n"), False)
    return ids, written
