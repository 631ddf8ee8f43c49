"""Measures of stories that need no judge. None of them is a grade, and none is called one.

They say whether a model repeats itself, copies its training text, surprises a better model, or forgets what a story
has said. A good value on all of them does not make a good story.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frailt.data.storyworld import probes
from frailt.errors import InputError
from frailt.evaluation.judge.overlap import overlap, words
from frailt.evaluation.judge.reports import Report, cell, described, plain
from frailt.evaluation.judge.students import Completion, Student, weights_of
from frailt.evaluation.loss import token_losses
from frailt.inference.sampling import Sampling
from frailt.inference.storyteller import Storyteller
from frailt.inference.torch_decoder import TorchStoryteller
from frailt.reports import markdown_table
from frailt.statistics import Mean, mean, resample

OFFLINE = {
    "words": "words",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "distinct_3": "distinct-3",
    "repetition": "repeated",
    "rouge_2": "ROUGE-2",
    "seen": "copied",
    "longest": "longest",
    "perplexity": "perplexity",
}
"""Columns of the table, by field of `Offline`."""
REPEATED = 4
"""Words in a row that count as repeated when a completion has them a second time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offline:
    """Measures of one model's completions. None where what they need was not given."""

    completions: int
    words: Mean
    """In a completion."""
    distinct_1: float
    """Different words, as a share of all words of all completions. It falls as more text is looked at: compare it only
    between models with as many completions of about the same length."""
    distinct_2: float
    """The same of pairs of words."""
    distinct_3: float
    """The same of three words in a row."""
    repetition: Mean
    """Share of a completion's runs of 4 words that stood in it before."""
    rouge_2: Mean | None
    """See `Overlap`."""
    seen: Mean | None
    longest: Mean | None
    perplexity: Mean | None
    """Of the completions under the reference model, given their beginnings: exp(nats per token of its tokenizer).
    Low for plain text, and for text that repeats itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """How a model goes on where a story of the embedded world has already decided the next word."""

    kept: Mean
    """Share of the words that agree with the story."""
    broken: Mean
    """Share that name another of its kind: another character, thing, look or place."""
    chance: float
    """What ``kept`` would be if one of the words of its kind that the story mentions were drawn."""


def measure(
    completions: dict[str, list[Completion]],
    *,
    training_text: Iterable[str] | None = None,
    reference: TorchStoryteller | None = None,
) -> dict[str, Offline]:
    """Measure the completions of several models.

    Args:
        completions: of each model, by its name.
        training_text: stories that the models were trained on, for the overlap with them; read once for all models.
        reference: a model for the perplexity of what the others wrote.
    """
    texts = [item.text for written in completions.values() for item in written]
    shared = iter(overlap(texts, training_text) if training_text is not None else [])
    result = {}
    for name, written in completions.items():
        groups = [item.beginning for item in written]
        tokens = [words(item.text) for item in written]
        ours = [] if training_text is None else [next(shared) for _ in written]
        with_runs = [i for i, item in enumerate(ours) if item.seen is not None]
        result[name] = Offline(
            completions=len(written),
            words=_mean([len(item) for item in tokens], groups),
            distinct_1=distinct(tokens, 1),
            distinct_2=distinct(tokens, 2),
            distinct_3=distinct(tokens, 3),
            repetition=_mean([repetition(item) for item in tokens], groups),
            rouge_2=mean([item.rouge_2 for item in ours], groups),
            seen=mean([ours[i].seen or 0.0 for i in with_runs], [groups[i] for i in with_runs]),
            longest=mean([item.longest for item in ours], groups),
            perplexity=None if reference is None else perplexity(reference, written),
        )
    return result


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Different n-grams over all n-grams of the texts; 0 where there are none."""
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: Sequence[str]) -> float:
    """Share of the runs of 4 words that stood in the text before; 0 for a text of fewer."""
    grams = [tuple(text[i : i + REPEATED]) for i in range(len(text) - REPEATED + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def facts_kept(model: Storyteller, count: int, *, seed: int = 0) -> Facts:
    """Ask a model to go on where stories of the embedded world, none that it was trained on, have decided a word.

    It takes the likeliest words. Only a model that was trained on such stories can be expected to answer.

    Raises:
        InputError: ``count`` is not positive.
    """
    if count < 1:
        raise InputError(f"probes is {count}; it must be at least 1")
    asked = list(probes(count, seed=seed))
    texts = model.generate([probe.prompt for probe in asked], Sampling(temperature=0, max_tokens=8))
    verdicts = [probe.check(text) for probe, text in zip(asked, texts, strict=True)]
    return Facts(
        kept=_mean([verdict is True for verdict in verdicts]),
        broken=_mean([verdict is False for verdict in verdicts]),
        chance=float(np.mean([1 / (1 + len(probe.alternatives)) for probe in asked])),
    )


def perplexity(reference: TorchStoryteller, written: Sequence[Completion]) -> Mean | None:
    """exp(nats per token) of completions under a reference, with its interval over beginnings.

    What lies beyond the reference's context is left out; None where nothing is left.
    """
    nats: dict[str, float] = dict.fromkeys((item.beginning for item in written), 0.0)
    tokens = dict.fromkeys(nats, 0)
    for item in written:
        given = [reference.tokenizer.bos, *reference.tokenizer.encode(item.beginning.rstrip(" "))]
        whole = [given[0], *reference.tokenizer.encode(item.beginning.rstrip(" ") + item.text)]
        whole = whole[: reference.model.config.context + 1]
        # Where the two part: the last piece of a beginning may reach into the completion.
        start = next((i for i, (a, b) in enumerate(zip(given, whole, strict=False)) if a != b), len(given))
        if start < len(whole):
            losses = token_losses(reference.model, np.array(whole))[start - 1 :]
            nats[item.beginning] += float(losses.sum())
            tokens[item.beginning] += len(losses)
    sums, counts = np.array(list(nats.values())), np.array(list(tokens.values()))
    if not counts.sum():
        return None

    def drawn(weights: np.ndarray) -> np.ndarray:
        total = weights @ counts
        return np.exp(np.divide(weights @ sums, total, out=np.full(len(total), np.nan), where=total > 0))

    interval = resample(len(sums), drawn)
    return Mean(
        value=math.exp(sums.sum() / counts.sum()), interval=interval if len(sums) > 1 else None, count=len(written)
    )


def sources_of(text: Sequence[Path], reference: Path | None, probes: int) -> dict[str, Any]:
    """What measures without a judge are taken from: names, and the SHA-256 of each file or model."""
    return {
        "training_text": [path.name for path in text],
        "reference": reference.name if reference is not None else None,
        "probes": probes,
        "files": {path.name: weights_of(path) for path in (*text, *filter(None, [reference]))},
    }


def report_offline(
    students: Sequence[Student], measures: dict[str, Offline], facts: dict[str, Facts], report: Report
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Write measures that need no judge; gives the table's head and rows.

    Args:
        students: the models.
        measures: of each by name, and of further texts such as the real endings.
        facts: of each that was asked.
        report: with the sources.
    """
    by_name = {student.name: student for student in students}
    used = [name for name in OFFLINE if any(getattr(measure, name) is not None for measure in measures.values())]
    head = ("text of", "loss", *(OFFLINE[name] for name in used), *(("facts kept", "facts broken") if facts else ()))
    rows = []
    for name, measure in measures.items():
        loss = by_name[name].loss if name in by_name else None
        row = [name, "" if loss is None else f"{loss:.3f}", *(cell(getattr(measure, field)) for field in used)]
        if facts:
            row += [cell(facts[name].kept), cell(facts[name].broken)] if name in facts else ["", ""]
        rows.append(tuple(row))
    models = [
        {**described(student), "measures": plain(measures[student.name])}
        | ({"facts": plain(facts[student.name])} if student.name in facts else {})
        for student in students
    ]
    others = {name: plain(measure) for name, measure in measures.items() if name not in by_name}
    report.write(
        {"what": "measures that need no judge; none of them is a grade", "models": models, "other_texts": others},
        table=markdown_table(head, rows),
        number=next(iter(measures.values())).completions,
        sources=report.sources,
        chance=next((fact.chance for fact in facts.values()), None),
    )
    return head, rows


def _mean(values: Sequence[float], groups: Sequence[str] | None = None) -> Mean:
    result = mean(values, groups)
    assert result is not None
    return result
