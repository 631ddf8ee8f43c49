"""The connection to a judge: any server that speaks the protocol of OpenAI's chat completions.

The key comes from the environment variable ``OPENAI_API_KEY`` and from nowhere else, and leaves this file only in the
header of a request. Whatever a server sends back goes through `Judge.clean` before it is stored or shown: a server may
echo the key.
"""

import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import openai

from frailt.errors import InputError
from frailt.evaluation.judge.grading import Form, Reply, read_reply

KEY_VARIABLE = "OPENAI_API_KEY"
OPENAI_URL = "https://api.openai.com/v1"
SECRET = 8
"""Characters from which a key is one; servers that need none are given words like "none"."""
LONGEST_REPLY = 1 << 20
"""Bytes after which a reply is taken for a fault of the server."""
LONGEST_WAIT = 900.0
"""Seconds that a rate limit may ask for; beyond, the run stops and says so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeConfig:
    """Which model grades, and how it is reached."""

    judge: str = "gpt-4-1106-preview"
    """Name of the judging model."""
    base_url: str | None = None
    """Server of the judge; unset: OPENAI_BASE_URL, else OpenAI's own. Ollama: http://localhost:11434/v1."""
    judge_temperature: float | None = None
    """Of the judge; unset: the server's default."""
    concurrency: int = 4
    """Calls at the same time."""
    timeout: float = 120.0
    """Seconds for one call."""
    max_calls: int | None = None
    """Stop after this many calls."""

    def __post_init__(self) -> None:
        if not self.judge.strip():
            raise InputError("judge is empty; name a model")
        if self.base_url is not None and urlsplit(self.base_url).scheme not in ("http", "https"):
            raise InputError("base_url is no address; write it like http://localhost:11434/v1")
        if self.judge_temperature is not None and not 0 <= self.judge_temperature <= 2:
            raise InputError(f"judge_temperature is {self.judge_temperature}; it must be from 0 to 2")
        if not 1 <= self.concurrency <= 64:
            raise InputError(f"concurrency is {self.concurrency}; it must be from 1 to 64")
        if not 0 < self.timeout < math.inf:
            raise InputError(f"timeout is {self.timeout}; it must be above 0 and finite")
        if self.max_calls is not None and self.max_calls < 0:
            raise InputError(f"max_calls is {self.max_calls}; it must not be negative")

    @property
    def url(self) -> str:
        """Where calls go."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL

    @property
    def server(self) -> str:
        """The same without what may be secret in it."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def read_key(config: JudgeConfig) -> str:
    """The key in the environment; empty where there is none and none is needed.

    Raises:
        InputError: the server needs a key and the environment has none, or not a usable one.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key and urlsplit(config.url).hostname == urlsplit(OPENAI_URL).hostname:
        raise InputError(
            f"the judge needs a key: set {KEY_VARIABLE} in the environment, or name another server with --base-url"
        )
    if not re.fullmatch(r"[!-~]*", key):
        raise InputError(f"{KEY_VARIABLE} holds characters that no key has; set it again")
    return key


class TryAgainError(Exception):
    """The server was busy, unwell or not there; ``seconds`` is how long it asks to be left alone."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Judge:
    """A judge that can be asked. Several threads may ask at once.

    Raises:
        InputError: as `read_key`.
    """

    def __init__(self, config: JudgeConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.config, self.clock, self._key = config, clock, read_key(config)
        # Its own retries are off: run.py counts calls, and waits for all threads at once.
        self._client = openai.OpenAI(
            api_key=self._key or "none", base_url=config.url, max_retries=0, timeout=config.timeout
        )

    def close(self) -> None:
        """Give connections back."""
        self._client.close()

    def ask(self, form: Form, beginning: str, *completions: str) -> Reply:
        """Ask once.

        Raises:
            TryAgainError: the same call may succeed later.
            InputError: it will not.
        """
        request: dict[str, Any] = {"model": self.config.judge, **form.request(beginning, *completions)}
        if self.config.judge_temperature is not None:
            request["temperature"] = self.config.judge_temperature
        started = self.clock()
        trouble: Exception
        try:
            body = self._body(request, started)
        except TryAgainError as error:
            trouble = error
        except openai.APITimeoutError:
            trouble = TryAgainError("timed out")
        except openai.APIStatusError as error:
            trouble = self._refusal(error)
        except Exception as error:
            # Connections break with the exceptions of whatever HTTP library is below; a later try may not.
            trouble = TryAgainError(_broken(error))
        else:
            # Cleaned before anything is cut off it: half a key would not be found any more.
            return read_reply(self.clean(body.decode(errors="replace")), form, self.clock() - started)
        raise trouble  # Out here, so that it carries no other exception, which would carry what the server said.

    def _body(self, request: dict[str, Any], started: float) -> bytes:
        """What the server sends, within the time and length that one call may take."""
        body = b""
        with self._client.chat.completions.with_streaming_response.create(**request) as response:
            for block in response.iter_bytes():
                body += block
                if len(body) > LONGEST_REPLY:
                    return body[:LONGEST_REPLY]  # No JSON any more, so a fault.
                if self.clock() - started > self.config.timeout:
                    raise TryAgainError("timed out")
        return body

    def clean(self, value: Any) -> Any:
        """The value with the key taken out, wherever in it that stands."""
        match value:
            case str():
                return value.replace(self._key, "[key]") if len(self._key) >= SECRET else value
            case dict():
                return {self.clean(name): self.clean(one) for name, one in value.items()}
            case list():
                return [self.clean(one) for one in value]
        return value

    def _refusal(self, error: openai.APIStatusError) -> Exception:
        status, config = error.status_code, self.config
        code = str(error.code or "")
        if status == 429 and code != "insufficient_quota":
            return self._wait("rate limit", error)
        if status in (408, 409, 425) or status >= 500:
            return self._wait(f"status {status}", error)
        said = " ".join(self.clean(_message(error.body)).split())[:200]
        way_out = {
            401: f"set {KEY_VARIABLE} to a key that {config.server} takes",
            403: f"set {KEY_VARIABLE} to a key that may use {config.judge}",
            404: "name a model that the server has with --judge, and its address with --base-url",
            429: "its account has no credit left",
        }.get(status, "see --judge, --base-url and --judge-temperature")
        return InputError(f"{config.server} refuses (status {status}{': ' + said if said else ''}); {way_out}")

    def _wait(self, reason: str, error: openai.APIStatusError) -> Exception:
        seconds = retry_after(error.response.headers, time.time)
        if seconds is not None and seconds > LONGEST_WAIT:
            return InputError(f"{self.config.server} asks to wait {seconds:.0f} s; give the same command again later")
        return TryAgainError(reason, seconds)


def retry_after(headers: Any, now: Callable[[], float]) -> float | None:
    """Seconds that a server asks to wait: a number, or a date; None where it does not say."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - now()
            except (ValueError, OverflowError):
                continue
        if not math.isnan(seconds):
            return max(0.0, seconds)
    return None


def _broken(error: BaseException) -> str:
    """Why there was no connection, as the system says it ("connection refused"), or what broke it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[0].lower() + cause.strerror[1:]
        error, cause = cause, cause.__cause__ or cause.__context__
    return f"the connection broke: {type(error).__name__}"


def _message(body: Any) -> str:
    """What an error's body says, if it says it in the usual place."""
    match body:
        case {"message": str(said)} | {"error": {"message": str(said)}} | {"error": str(said)}:
            return said
    return ""
