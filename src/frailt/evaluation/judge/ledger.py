"""Every reply that was ever paid for, one JSON line each, appended and never changed.

A line is found by its question's key, a hash of all that could change the answer: the judge and its temperature, the
prompt, the texts, and a number for questions that are asked again on purpose. So a run that was cut off goes on
where it stopped, and one with more models asks only what is new.
"""

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from frailt.errors import InputError
from frailt.evaluation.judge.client import JudgeConfig
from frailt.evaluation.judge.grading import MOST_TOKENS, Choice, Clean, Form, Grades, Reply
from frailt.files import hold, naming, parse_json

ASKS = 3
"""Faulty replies to one question after which it counts as failed."""
LARGEST_LEDGER = 1 << 30
"""Bytes: hundreds of thousands of replies."""

Text = Annotated[str, AfterValidator(lambda text: text.encode().decode())]
"""A text without lone surrogates, which could not be written again."""
_Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


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


class _Line(BaseModel):
    """What is read of a line; the rest is for people."""

    model_config = ConfigDict(strict=True, extra="ignore")

    key: str
    answer: Grades | Choice | None
    fault: Text | None = None
    refused: bool = False
    server: Text = ""
    prompt_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None


class Replies:
    """What a ledger's lines say of each question, by its key.

    Raises:
        InputError: a line other than the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spent: Counter[str] = Counter()
        """Replies, and tokens as far as the server counted, over the whole file."""
        self._answers: dict[str, _Line] = {}
        self._faults: dict[str, list[str]] = {}
        self._refused: dict[str, str] = {}
        self.whole = 0
        """Bytes of the file's complete lines. What follows was cut off in writing."""
        self.ended = True
        """Whether the last line has its end."""
        self._read()

    def answer(self, key: str) -> dict[str, Any] | None:
        """The answer to a question, with the ``server`` that gave it; None while there is none."""
        line = self._answers.get(key)
        return None if line is None or line.answer is None else {**line.answer.model_dump(), "server": line.server}

    def fault(self, key: str) -> str | None:
        """Why a question has no answer, though it was asked often enough; None where it has one or is open."""
        faults = self._faults.get(key, [])
        return faults[-1] if key not in self._answers and len(faults) >= ASKS else None

    def refusal(self, key: str) -> str | None:
        """The server's words to a question that it would not take; None where it did."""
        return None if key in self._answers else self._refused.get(key)

    def open(self, key: str) -> bool:
        """Whether a question still wants asking."""
        return key not in self._answers and self.fault(key) is None and self.refusal(key) is None

    def _take(self, line: _Line) -> None:
        self.spent["replies"] += 1
        self.spent["prompt_tokens"] += line.prompt_tokens or 0
        self.spent["completion_tokens"] += line.completion_tokens or 0
        if line.answer is not None:
            self._answers[line.key] = line
        elif line.refused:
            self._refused[line.key] = line.fault or "refused"
        else:
            self._faults.setdefault(line.key, []).append(line.fault or "no answer")

    def _read(self) -> None:
        try:
            with naming(self.path), self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size > LARGEST_LEDGER:
                    raise InputError(f"{self.path} is too large for a ledger; choose another --out")
                *complete, rest = file.read().split(b"\n")
        except FileNotFoundError:
            return
        for number, line in enumerate(complete, 1):
            self._take(self._line(line, number))
            self.whole += len(line) + 1
        if rest:
            try:
                self._take(self._line(rest, len(complete) + 1))
            except InputError:
                return
            self.whole += len(rest)
            self.ended = False

    def _line(self, line: bytes, number: int) -> _Line:
        try:
            return _Line.model_validate(parse_json(line, f"line {number}"))
        except (InputError, ValidationError):
            raise InputError(
                f"{self.path}, line {number}, is damaged; restore the file, or delete that line to ask again"
            ) from None


class Ledger(Replies):
    """The replies in a file, held by one process at a time; any thread may add to it.

    Args:
        path: the file; it need not exist yet.
        clean: see `Judge.clean`; applied to all that is written.
        again: open the questions anew that failed or were refused.

    Raises:
        InputError: another process holds it, or a line other than the last is damaged.
    """

    def __init__(self, path: Path, clean: Clean = lambda value: value, *, again: bool = False) -> None:
        self._clean, self._writing = clean, threading.Lock()
        busy = f"{path} is in use by another process; wait for it or choose another --out"
        self._lock = hold(path.with_name(f".{path.name}.lock"), busy)
        try:
            super().__init__(path)
            if again:
                self._refused.clear()
                self._faults = {key: faults for key, faults in self._faults.items() if len(faults) < ASKS}
            with naming(path):
                self._file = path.open("ab")
                if self._file.tell() > self.whole:
                    self._file.truncate(self.whole)
                if not self.ended:
                    self._file.write(b"\n")
                    self._file.flush()
        except (InputError, OSError):
            self._lock.release()
            raise

    def close(self) -> None:
        """Let others use the file."""
        self._file.close()
        self._lock.release()

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
        data = json.dumps(self._clean(line), ensure_ascii=False).encode(errors="replace") + b"\n"
        with self._writing, naming(self.path):
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._take(_Line.model_validate(line))


def answers(replies: Replies, questions: Sequence[Question], form: Form, config: JudgeConfig) -> list[dict[str, Any]]:
    """The answers that there are, each with its question's ``source``, ``beginning``, ``completions`` and ``index``,
    and with the ``server`` that gave it.

    Raises:
        InputError: an answer is to another question.
    """
    known = []
    for question in questions:
        if (answer := replies.answer(question.key(form, config))) is not None:
            if not form.answer.model_fields.keys() <= answer.keys():
                raise InputError(f"{replies.path} has a line whose answer does not fit its key; restore the file")
            known.append({**asdict(question), **answer})
    return known
