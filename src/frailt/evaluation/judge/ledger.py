"""Every reply that was ever paid for, one JSON line each, appended and never changed.

A line is found by its question's key, a hash of all that could change the answer: the judge and its temperature, the
prompt, the texts, and a number for questions that are asked again on purpose. So a run that was cut off goes on
where it stopped, and one with more models asks only what is new.
"""

import fcntl
import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from frailt.errors import InputError
from frailt.evaluation.judge.client import JudgeConfig
from frailt.evaluation.judge.grading import Clean, Form, Reply

ASKS = 3
"""Faulty replies to one question after which it counts as failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Something to ask a judge."""

    source: str
    """Whose text it is; for the reader, not part of the key."""
    beginning: str
    completions: tuple[str, ...]
    """The one to grade, or the two to compare in their order."""
    index: int = 0
    """Tells apart questions that are equal in all else."""

    def key(self, form: Form, config: JudgeConfig) -> str:
        """What the ledger files replies under."""
        prompt = [form.tool, form.prompt.version, form.prompt.text]
        parts = [config.judge, config.judge_temperature, *prompt, self.beginning, self.completions, self.index]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Ledger:
    """The replies in a file, held by one process at a time; any thread may add to it.

    Args:
        path: the file; it need not exist yet.
        clean: see `Judge.clean`; applied to all that is written.

    Raises:
        InputError: another process holds it, or a line other than the last is damaged.
    """

    def __init__(self, path: Path, clean: Clean = lambda value: value) -> None:
        self.path, self._clean, self._lock = path, clean, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(f"{path} is in use by another process; wait for it or choose another --out") from None
        self._answers: dict[str, dict[str, Any]] = {}
        self._faults: Counter[str] = Counter()
        self.spent: Counter[str] = Counter()
        """Replies, and tokens as far as the server counted, over the whole file."""
        try:
            for line in self._mended():
                self._take(line)
        except InputError:
            self._file.close()
            raise

    def close(self) -> None:
        """Let others use the file."""
        self._file.close()

    def answer(self, key: str) -> dict[str, Any] | None:
        """The answer to a question; None while there is none."""
        return self._answers.get(key)

    def failed(self, key: str) -> bool:
        """Whether a question was asked often enough and has no answer."""
        return key not in self._answers and self._faults[key] >= ASKS

    def open(self, key: str) -> bool:
        """Whether a question still wants asking."""
        return key not in self._answers and self._faults[key] < ASKS

    def add(self, question: Question, form: Form, config: JudgeConfig, reply: Reply) -> None:
        """Write a reply down, and through to the disk: it was paid for."""
        line = {
            "key": question.key(form, config),
            "judge": config.judge,
            "judge_temperature": config.judge_temperature,
            "server": config.server,
            "prompt": asdict(form.prompt),
            "source": question.source,
            "beginning": question.beginning,
            "completions": list(question.completions),
            "index": question.index,
            **asdict(reply),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with self._lock:
            self._file.write(json.dumps(self._clean(line), ensure_ascii=False).encode(errors="replace") + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        self.spent["replies"] += 1
        for name in ("prompt_tokens", "completion_tokens"):
            self.spent[name] += line.get(name) or 0
        if line["answer"] is not None:
            self._answers[line["key"]] = line["answer"]
        else:
            self._faults[line["key"]] += 1

    def _mended(self) -> list[dict[str, Any]]:
        """All lines; a last one that was cut off in writing is taken off, one that only lacks its end is ended."""
        self._file.seek(0)
        *complete, rest = self._file.read().split(b"\n")
        lines = [self._read(line, number) for number, line in enumerate(complete, 1)]
        if rest:
            try:
                lines.append(self._read(rest, len(complete) + 1))
                self._file.write(b"\n")
            except InputError:
                self._file.truncate(sum(len(line) + 1 for line in complete))
            self._file.flush()
        return lines

    def _read(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            value = json.loads(line)
            if {"key", "answer"} <= value.keys() and isinstance(value["answer"], dict | None):
                return value
        except (ValueError, AttributeError, RecursionError):
            pass
        raise InputError(f"{self.path}, line {number}, is damaged; restore the file, or delete that line to ask again")


def answers(ledger: Ledger, questions: Sequence[Question], form: Form, config: JudgeConfig) -> list[dict[str, Any]]:
    """The answers that there are, each with its question's ``source``, ``beginning``, ``completions`` and ``index``."""
    found = []
    for question in questions:
        answer = ledger.answer(question.key(form, config))
        if answer is not None:
            found.append({**asdict(question), **answer})
    return found
