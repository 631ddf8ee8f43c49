"""What a run would cost, before its first call."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from frailt.evaluation.judge.client import JudgeConfig
from frailt.evaluation.judge.grading import Form
from frailt.evaluation.judge.ledger import ASKS, Ledger, Question

PRICES_OF = "2025-04"
"""When the prices were noted. They change: the bill is the provider's."""
PRICES = {
    "gpt-4-1106-preview": (10.00, 30.00),
    "gpt-4-turbo": (10.00, 30.00),
    "gpt-4": (30.00, 60.00),
    "gpt-4o": (2.50, 10.00),
    "gpt-4o-mini": (0.15, 0.60),
    "gpt-4.1": (2.00, 8.00),
    "gpt-4.1-mini": (0.40, 1.60),
    "gpt-4.1-nano": (0.10, 0.40),
}
"""US dollars for a million tokens read, and for a million tokens written, of judges at OpenAI."""
CHARACTERS_A_TOKEN = 4.0
"""Of English text in the tokenizers of large models; stories in short words have fewer."""
TOKENS_AN_ANSWER = 150
"""A few sentences and four numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Calls that a run would make if every reply were in order, and about how much they would cost."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    price: float | None
    """US dollars; None for a judge without a known price."""

    def __str__(self) -> str:
        price = (
            "price unknown"
            if self.price is None
            else f"about ${self.price:.2f} at the prices of {PRICES_OF}, at most {ASKS} times that"
        )
        return (
            f"{self.calls:,} calls, about {self.prompt_tokens:,} tokens to read and {self.completion_tokens:,} to "
            f"write, {price}"
        )


def estimate(
    asked: Sequence[tuple[Form, Sequence[Question]]], config: JudgeConfig, ledger: Ledger | None = None
) -> Estimate:
    """The cost of what the ledger has no answer to."""
    calls, characters = 0, 0
    for form, questions in asked:
        keyed = {question.key(form, config): question for question in questions}
        for key, question in keyed.items():
            if ledger is None or ledger.open(key):
                calls += 1
                characters += len(json.dumps(form.request(question.beginning, *question.completions)))
    read, written = round(characters / CHARACTERS_A_TOKEN), calls * TOKENS_AN_ANSWER
    local = config.url.split("/")[2].rpartition("@")[2].split(":")[0] in ("localhost", "127.0.0.1")
    price = None if local else PRICES.get(config.judge)
    return Estimate(
        calls=calls,
        prompt_tokens=read,
        completion_tokens=written,
        price=None if price is None else (read * price[0] + written * price[1]) / 1e6,
    )
