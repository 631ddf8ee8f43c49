"""Asking many questions: several at a time, no faster than the server allows, none of them twice."""

import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frailt.errors import excerpt
from frailt.evaluation.judge.client import (
    LONGEST_WORDS,
    Judge,
    JudgeConfig,
    RefusedError,
    RephrasedError,
    TryAgainError,
)
from frailt.evaluation.judge.grading import Form, Reply
from frailt.evaluation.judge.ledger import Ledger, Question, answers

Asked = Sequence[tuple[Form, Sequence[Question]]]
"""Questions, with the form that each is asked with."""

TRIES = 8
"""Calls for one reply while the server is busy, unwell or not there."""
PATIENCE = 300.0
"""Seconds of trouble, with no reply to any question, after which the run stops."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the second try; it doubles from try to try up to the longest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Where a run stands."""

    questions: int
    answered: int
    """With those that were answered before."""
    failed: int
    """Asked as often as stated, with no answer that counts."""
    calls: int
    """Made by this run."""
    prompt_tokens: int
    """Of all replies in the ledger, as far as the server counts."""
    completion_tokens: int
    refused: int = 0
    """Not taken by the server, which took others."""
    faults: tuple[str, ...] = ()
    """What was wrong with those that failed or were refused, the commonest first, with its number in brackets."""
    notice: str | None = None
    """The server's words to the last question that it refused."""
    waiting: str | None = None
    """What went wrong with the last call, while it is to be tried again, and for how long."""
    stopped: str | None = None
    """Why questions are left over; None where none are."""
    lost: bool = False
    """Whether questions are left over because the judge does not answer, whatever stopped the run in the end."""

    @property
    def open(self) -> int:
        """Questions that are left over."""
        return self.questions - self.answered - self.failed - self.refused


class NoAnswerError(ConnectionError):
    """The judge answered nothing, or stopped answering. What it had answered is in the ledger."""


def consult(
    asked: Asked,
    config: JudgeConfig,
    path: Path,
    *,
    again: bool = False,
    report: Callable[[Tally], None] = lambda tally: None,
) -> tuple[Tally, list[list[dict[str, Any]]]]:
    """Ask whatever the ledger at ``path`` has no answer to, and give all answers that there are, by form.

    Args:
        asked, report: as for `ask_all`.
        config, path: the judge, and the ledger.
        again: ask the questions again too that failed or were refused.

    Raises:
        NoAnswerError: there is not one answer, or questions are open because the judge does not answer.
        InputError: as `ask_all`, or there is no key, or another process holds the ledger.
    """
    with closing(Judge(config)) as judge, closing(Ledger(path, judge.clean, again=again)) as ledger:
        tally = ask_all(asked, judge, ledger, report=report)
        known = [answers(ledger, questions, form, config) for form, questions in asked]
    if tally.lost:
        raise NoAnswerError(
            f"{tally.open} of {tally.questions} questions are open: {tally.stopped}; what was answered is kept: mend "
            "the connection or --base-url, and give the same command again"
        )
    if tally.questions and not tally.answered:
        raise NoAnswerError(f"none of {tally.questions} questions has an answer: {summary(tally)}")
    return tally, known


def summary(tally: Tally) -> str:
    """What became of the questions without an answer, and what to do; empty where all have one."""
    notes = []
    if tally.failed or tally.refused:
        counts = ((tally.failed, "failed"), (tally.refused, "refused"))
        numbers = " and ".join(f"{number} {outcome}" for number, outcome in counts if number)
        notes.append(f"{numbers}: {'; '.join(tally.faults[:3])}; add --again to ask them again")
    if tally.open:
        notes.append(f"{tally.open} not asked: {tally.stopped}; give the same command again to go on")
    return "; ".join(notes)


def ask_all(
    asked: Asked,
    judge: Judge,
    ledger: Ledger,
    *,
    report: Callable[[Tally], None] = lambda tally: None,
    sleep: Callable[[float], object] | None = None,
) -> Tally:
    """Ask every question that the ledger has no answer to.

    Args:
        asked: forms, and the questions to ask with each; of questions with equal keys, one is asked.
        judge: whom; its config bounds concurrency and calls.
        ledger: where replies go, each at once.
        report: called after every call, from one thread at a time.
        sleep: waits for a number of seconds; unset: a wait that ends when the run is stopped.

    Raises:
        InputError: the server refuses, and would refuse every other question. What was answered by then is in the
            ledger.
    """
    return _Run(asked, judge, ledger, report, sleep).go()


class _Run:
    def __init__(
        self,
        asked: Asked,
        judge: Judge,
        ledger: Ledger,
        report: Callable[[Tally], None],
        sleep: Callable[[float], object] | None,
    ) -> None:
        self.keyed = {item.key(form, judge.config): (form, item) for form, questions in asked for item in questions}
        self.judge, self.ledger, self.report = judge, ledger, report
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.sleep = sleep or self.stop.wait
        self.reason: str | None = None
        self.lost = False
        self.trouble: str | None = None
        self.waiting: str | None = None
        self.refused: dict[str, str] = {}
        """The server's words to the questions that it refused in this run, by key."""
        self.takes_questions = False
        """Whether the judge has replied to one in this run."""
        self.calls = 0
        self.not_before = self.give_up = judge.clock()

    def go(self) -> Tally:
        pool = ThreadPoolExecutor(self.judge.config.concurrency)
        tasks = [pool.submit(self.settle, key) for key in self.keyed if self.ledger.open(key)]
        try:
            wait(tasks)
        except KeyboardInterrupt:
            # Calls under way are paid for, so their replies are waited for and kept.
            self.halt("stopping, after the calls under way")
            with self.lock:
                self.report(self.tally())
            raise
        finally:
            self.halt(self.trouble or f"the judge at {self.judge.config.server} did not answer them", lost=True)
            pool.shutdown(cancel_futures=True)
            if self.takes_questions:  # Else it is not the questions that are refused, and none is marked.
                for key, words in self.refused.items():
                    form, question = self.keyed[key]
                    self.ledger.add(question, form, self.judge.config, Reply(fault=words, refused=True))
        for task in tasks:
            if not task.cancelled():
                task.result()
        return self.tally()

    def tally(self) -> Tally:
        answered = sum(self.ledger.answer(key) is not None for key in self.keyed)
        failed = [fault for key in self.keyed if (fault := self.ledger.fault(key)) is not None]
        refused = [words for key in self.keyed if (words := self.refused.get(key) or self.ledger.refusal(key))]
        faults = Counter(excerpt(fault, LONGEST_WORDS) for fault in (*failed, *refused)).most_common()
        done = answered + len(failed) + len(refused) == len(self.keyed)
        return Tally(
            questions=len(self.keyed),
            answered=answered,
            failed=len(failed),
            calls=self.calls,
            prompt_tokens=self.ledger.spent["prompt_tokens"],
            completion_tokens=self.ledger.spent["completion_tokens"],
            refused=len(refused),
            faults=tuple(f"{fault} ({number})" for fault, number in faults),
            notice=next(reversed(self.refused.values()), None),
            waiting=None if done or self.reason else self.waiting,
            stopped=None if done else self.reason,
            lost=self.lost and not done,
        )

    def settle(self, key: str) -> None:
        """Ask a question until it has an answer, has failed or is refused."""
        form, question = self.keyed[key]
        try:
            while self.ledger.open(key) and key not in self.refused and not self.stop.is_set():
                try:
                    result = self.reply(form, question)
                except RefusedError as refusal:
                    result = str(refusal)
                if result is None:
                    return
                with self.lock:
                    if isinstance(result, Reply):
                        self.takes_questions = True
                        self.ledger.add(question, form, self.judge.config, result)
                    else:
                        self.refused[key] = result
                    self.trouble = self.waiting = None
                    self.report(self.tally())
        except BaseException:
            self.halt("stopped")
            raise

    def reply(self, form: Form, question: Question) -> Reply | None:
        """One reply, with as many tries as it takes; None where the run is over or the server stays silent.

        Raises:
            RefusedError: the server does not take this question.
        """
        for attempt in range(TRIES):
            while not self.stop.is_set() and (left := self.not_before - self.judge.clock()) > 0:
                self.sleep(left)
            if not self.may_call():
                return None
            try:
                return self.judge.ask(form, question.beginning, *question.completions)
            except RephrasedError:
                continue
            except TryAgainError as trouble:
                self.bear(trouble, attempt)
        return None

    def bear(self, trouble: TryAgainError, attempt: int) -> None:
        """Say what went wrong and how long it is borne, and wait; or stop the run, where that time is up."""
        with self.lock:
            now = self.judge.clock()
            if self.trouble is None:
                self.give_up = now + PATIENCE
            self.trouble = f"the judge at {self.judge.config.server} does not answer ({trouble})"
            left = self.give_up - now
            if trouble.seconds is not None:
                pause = trouble.seconds
            elif attempt + 1 < TRIES:
                pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1)
                pause = min(pause, max(left, 0.0))  # One last try when the time is up.
            else:
                pause = 0.0  # Another question's turn.
            if left > 0:
                longest = math.ceil(round(max(left, pause), 3))  # A difference of floats: 300.0000001 s are 300.
                self.waiting = f"{self.trouble}; trying again in {math.ceil(pause)} s, for {longest} s at most"
                self.report(self.tally())
        if left <= 0:
            self.halt(self.trouble, lost=True)
        elif trouble.seconds is not None:
            # A rate limit is for all threads, not for the one that met it.
            with self.lock:
                self.not_before = max(self.not_before, self.judge.clock() + pause)
        elif pause:
            self.sleep(pause)

    def may_call(self) -> bool:
        """Count a call, if there may be another one."""
        most = self.judge.config.max_calls
        with self.lock:
            if self.stop.is_set():
                return False
            if most is None or self.calls < most:
                self.calls += 1
                return True
        trouble = self.trouble
        self.halt(f"--max-calls {most} reached{f'; {trouble}' if trouble else ''}", lost=trouble is not None)
        return False

    def halt(self, reason: str, *, lost: bool = False) -> None:
        """Start nothing more. The first reason stays."""
        with self.lock:
            if not self.stop.is_set():
                self.reason, self.lost = reason, lost
            self.stop.set()
