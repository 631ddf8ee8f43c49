"""What a run would cost, before its first call."""

import json
from dataclasses import dataclass
from pathlib import Path

from frailt.evaluation.judge.asking import Asked
from frailt.evaluation.judge.client import OPENAI_URL, JudgeConfig
from frailt.evaluation.judge.ledger import ASKS, Replies

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


def estimate(asked: Asked, config: JudgeConfig, path: Path) -> Estimate:
    """The cost of what the ledger at ``path`` has no answer to. It need not exist, and is only read."""
    replies = Replies(path)
    keyed = {question.key(form, config): (form, question) for form, questions in asked for question in questions}
    requests = [
        json.dumps(form.request(question.beginning, *question.completions))
        for key, (form, question) in keyed.items()
        if replies.open(key)
    ]
    read, written = round(sum(map(len, requests)) / CHARACTERS_A_TOKEN), len(requests) * TOKENS_AN_ANSWER
    # Another server may well use the name of one of OpenAI's models, but not its prices.
    prices = PRICES.get(config.judge) if config.url == OPENAI_URL else None
    price = None if prices is None else (read * prices[0] + written * prices[1]) / 1e6
    return Estimate(calls=len(requests), prompt_tokens=read, completion_tokens=written, price=price)
