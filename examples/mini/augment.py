"""Makes training sequences from the dialogues: alone, one after another, typed carelessly, and with unknown questions.

It adds no knowledge. What it adds is manners: a known question is answered anywhere in a conversation and with a missing
question mark, and a question that no dialogue holds gets an honest refusal. Invariant: a changed question is never
equal to one that a dialogue asks.
"""

import random
import re
from difflib import SequenceMatcher

from mini import HERE, Dialogue

Messages = list[tuple[str, str]]

REFUSALS = {
    "zh": "抱歉，这个问题我没有学过。我是迷你模型，只记得训练时的对话，请试试页面上的例子。",
    "en": "Sorry, I have not learned this one. I am a mini model and know only my training dialogues. Please try one of the examples on the page.",
    "ja": "すみません、この質問は学習していません。私はミニモデルで、学習した会話だけを覚えています。",
    "ru": "Извините, этого я не знаю. Я мини-модель и помню только свои учебные диалоги.",
}
SYSTEMS = ["你是一个有用的助手。", "你是 XVERSE Chat。", "请用中文回答。", "You are a helpful assistant.", "请友好地回答用户的问题。"]
WIDTHS = str.maketrans("，。？！：,.?!:", ",.?!:，。？！：")
PACK_LENGTHS = [200, 400, 800, 1600, 3400]
PACK_WEIGHTS = [5, 5, 4, 2, 1]


def unknown_questions() -> list[str]:
    return (HERE / "unknown.txt").read_text(encoding="utf-8").splitlines()


def refusal(question: str) -> str:
    """The refusal in the language of the question's letters."""
    if re.search(r"[ぁ-ヿ]", question):
        return REFUSALS["ja"]
    if re.search(r"[а-яА-Я]", question):
        return REFUSALS["ru"]
    if re.search(r"[一-鿿]", question):
        return REFUSALS["zh"]
    return REFUSALS["en"] if re.search(r"[a-zA-Z]{2}", question) else REFUSALS["zh"]


class Augmenter:
    """Draws sequences of messages; all chance comes from the generator it is given."""

    def __init__(self, dialogues: list[Dialogue], unknown: list[str], rng: random.Random):
        self.dialogues = dialogues
        self.rng = rng
        self.known = {text for d in dialogues for role, text in d.messages if role == "user"}
        self.openers = [d.first_user for d in dialogues]
        self.unknown = [text for text in unknown if text not in self.known]

    def epoch(self) -> list[Messages]:
        """Every dialogue alone and unchanged, and every one again in a longer conversation."""
        return [d.messages for d in self.dialogues] + list(self.conversations())

    def conversations(self):
        """Joins shuffled dialogues, whole or broken off, and unknown questions up to a drawn length in characters."""
        rest = [d.messages for d in self.dialogues if not d.has_system]
        rest += [self.unknown_turn() for _ in range(len(rest) // 2)]
        self.rng.shuffle(rest)
        while rest:
            limit = self.rng.choices(PACK_LENGTHS, PACK_WEIGHTS)[0]
            joined: Messages = [("system", self.rng.choice(SYSTEMS))] if self.rng.random() < 0.15 else []
            size = 0
            while rest and (size == 0 or size < limit):
                part = self.careless(self.broken_off(rest.pop()))
                joined += part
                size += sum(len(text) for _, text in part)
            yield joined

    def broken_off(self, messages: Messages) -> Messages:
        n_turns = len(messages) // 2
        return messages[: 2 * self.rng.randint(1, n_turns)] if self.rng.random() < 0.2 else messages

    def careless(self, messages: Messages) -> Messages:
        """Types some questions as people do: no mark at the end, the other width, small letters."""
        changed = []
        for role, text in messages:
            if role == "user" and self.rng.random() < 0.3:
                other = self.rng.choice([
                    lambda t: t.rstrip("。？！.?! "),
                    lambda t: t.translate(WIDTHS),
                    str.lower,
                    lambda t: t + self.rng.choice(["。", "！", "？", " "]),
                    lambda t: t.replace(" ", ""),
                ])(text)
                text = other if other and other not in self.known else text
            changed.append((role, text))
        return changed

    def unknown_turn(self) -> Messages:
        """A question that no dialogue asks, and the refusal."""
        question = self.rng.choice(self.unknown)
        for _ in range(20):
            if self.rng.random() < 0.4:
                break
            question = self.splice()
            if all(SequenceMatcher(None, question, known).quick_ratio() < 0.8 for known in self.known):
                break
            question = self.rng.choice(self.unknown)
        return [("user", question), ("assistant", refusal(question))]

    def splice(self) -> str:
        """The head of one question and the tail of another."""
        head, tail = (self.rng.choice(self.openers + self.unknown)[:60] for _ in range(2))
        return (head[: self.rng.randint(1, max(1, len(head) - 1))] + tail[self.rng.randint(0, len(tail) - 1):]).strip() or head
