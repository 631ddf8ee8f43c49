"""The connection to a judge: any server that speaks the protocol of OpenAI's chat completions.

The key comes from the environment variable ``OPENAI_API_KEY`` and from nowhere else, and leaves this file only in the
header of a request. Whatever a server sends back goes through `Judge.clean` before it is stored or shown: a server may
echo the key, or a password in its address.
"""

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx2
import openai

from frailt.configs import require
from frailt.errors import InputError, excerpt
from frailt.evaluation.judge.grading import FaultError, Form, Reply, parse_object, read_reply

KEY_VARIABLE, URL_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"
OPENAI_URL = "https://api.openai.com/v1"
SECRET = 8
"""Characters from which a key is one; servers that need none are given words like "none"."""
LARGEST_REPLY = 1 << 20
"""Bytes after which a reply is taken for a fault of the server."""
LONGEST_WORDS = 240
"""Characters of a server's own words that a message shows."""
LONGEST_WAIT = 900.0
"""Seconds that a rate limit may ask for; beyond, the run stops and says so."""

_OF_ALL_QUESTIONS = re.compile(r"\btools?\b|\btool_choice\b|\bfunctions?\b|--jinja|\btemperature\b", re.IGNORECASE)
"""What an error names where it is about how every question is asked, and not about one of them."""
_ENDING = frozenset({401, 402, 404, 405, 407, 410, 429})
"""Statuses that every other question would meet too; 429 where it is no limit of the rate."""


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
        if self.base_url is not None:
            _address(self.base_url, "base_url")
        if self.judge_temperature is not None and not 0 <= self.judge_temperature <= 2:
            raise InputError(f"judge_temperature is {self.judge_temperature}; it must be from 0 to 2")
        if not 1 <= self.concurrency <= 64:
            raise InputError(f"concurrency is {self.concurrency}; it must be from 1 to 64")
        require(self, "timeout", 0, above=True)
        require(self, "max_calls", 0)

    @property
    def url(self) -> httpx2.URL:
        """Where calls go. It may hold a password: show ``server`` instead.

        Raises:
            InputError: the environment names something else than an address.
        """
        if self.base_url is not None:
            return _address(self.base_url, "base_url")
        return _address(os.environ.get(URL_VARIABLE) or OPENAI_URL, URL_VARIABLE)

    @property
    def server(self) -> str:
        """The address without what may be secret in it: user, password and query."""
        return str(self.url.copy_with(userinfo=b"", query=None, fragment=None))


def _address(text: str, source: str) -> httpx2.URL:
    # The text is not quoted: it may hold a password.
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        url = None
    if url is None or url.scheme not in ("http", "https") or not url.host or (url.port or 0) >= 1 << 16:
        raise InputError(f"{source} is not an address; write it like http://localhost:11434/v1")
    return url


def _key(config: JudgeConfig) -> str:
    """The key in the environment; empty where there is none and none is needed."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key and config.url.host == httpx2.URL(OPENAI_URL).host:
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


class RephrasedError(Exception):
    """The server does not take the form of the request; the next call has another one."""


class RefusedError(Exception):
    """The server refuses this question, and may answer others."""


class Judge:
    """A judge that can be asked. Several threads may ask at once.

    Raises:
        InputError: the environment lacks a key that the server needs, or names a proxy that cannot be used.
    """

    def __init__(self, config: JudgeConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.config, self.clock, key = config, clock, _key(config)
        url = config.url
        self._secrets = [secret for secret in (key, url.password, url.query.decode()) if len(secret) >= SECRET]
        self._names_tool = True
        """Whether a request names the function that must be called; else it says that one must be."""
        self._known = False
        """Whether this server has ever sent a chat completion."""
        try:
            # Its own retries are off: asking.py counts calls, and waits for all threads at once.
            self._client = openai.OpenAI(api_key=key or "none", base_url=url, max_retries=0, timeout=config.timeout)
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            proxies = [name for name in os.environ if name.lower() in ("all_proxy", "http_proxy", "https_proxy")]
            way_out = "run `pip install socksio`, or unset it" if isinstance(error, ImportError) else "mend or unset it"
            raise InputError(
                f"the proxy that {' or '.join(sorted(proxies)) or 'the system'} names cannot be used; {way_out}"
            ) from None

    def close(self) -> None:
        """Give connections back."""
        self._client.close()

    def ask(self, form: Form, beginning: str, *completions: str) -> Reply:
        """Ask once.

        Raises:
            TryAgainError: the same call may succeed later.
            RephrasedError: a call now may succeed.
            RefusedError: it will not, and others may.
            InputError: no call will.
        """
        named = self._names_tool
        request: dict[str, Any] = {"model": self.config.judge, **form.request(beginning, *completions)}
        if not named:
            request["tool_choice"] = "required"
        if self.config.judge_temperature is not None:
            request["temperature"] = self.config.judge_temperature
        started = self.clock()
        try:
            # Cleaned before anything is cut off it: half a key would not be found any more.
            text = self.clean(self._body(request, started).decode("utf-8-sig", errors="replace"))
            result = self._reply(text, form, self.clock() - started, named)
        except (openai.APITimeoutError, TimeoutError):
            result = TryAgainError("timed out")
        except openai.APIStatusError as error:
            words = error.response.content.decode("utf-8-sig", errors="replace")
            result = self._trouble(error.status_code, _error(words), error.response.headers, named)
        except (openai.APIError, httpx2.HTTPError, OSError, UnicodeError) as error:  # A body is not as its header says.
            result = TryAgainError(_broken(error))
        if isinstance(result, Reply):
            return result
        raise result  # Out here, so that it carries no other exception, which would carry what the server said.

    def _body(self, request: dict[str, Any], started: float) -> bytes:
        """What the server sends, within the time and length that one call may take."""
        body = b""
        with self._client.chat.completions.with_streaming_response.create(**request) as response:
            for block in response.iter_bytes():
                body += block
                if len(body) > LARGEST_REPLY:
                    return body[:LARGEST_REPLY]  # Not JSON any more, so trouble.
                if self.clock() - started > self.config.timeout:
                    raise TimeoutError
        return body

    def _reply(self, text: str, form: Form, seconds: float, named: bool) -> Reply | Exception:
        """What was sent with status 200, as a reply or as what is wrong with the server."""
        try:
            value = parse_object(text, "the reply")
        except FaultError:
            value = {}
        match value:
            case {"choices": [{"error": dict()}, *_]}:
                error = _error(json.dumps(value["choices"][0]))
            case {"error": dict() | str()}:
                error = _error(text)
            case {"choices": [{"message": dict()}, *_]}:  # A chat completion, with or without an answer in it.
                self._known = True
                return read_reply(value, text, form, seconds)
            case _:
                reason = f"it sends no chat completion but {self._words(_error(text).words) or 'nothing'}"
                if self._known:
                    return TryAgainError(reason)
                return InputError(f"{self.config.server} is not a judge: {reason}; see --base-url")
        status = error.code if isinstance(error.code, int) and 400 <= error.code < 600 else 400
        return self._trouble(status, error, {}, named)

    def clean(self, value: Any) -> Any:
        """The value with key and password taken out, wherever in it they stand."""
        match value:
            case str():
                for secret in self._secrets:
                    value = value.replace(secret, "[key]")
                return value
            case dict():
                return {self.clean(name): self.clean(inner) for name, inner in value.items()}
            case list():
                return [self.clean(inner) for inner in value]
        return value

    def _words(self, text: str) -> str:
        return excerpt(" ".join(self.clean(text).split()), LONGEST_WORDS)

    def _trouble(self, status: int, error: "_Error", headers: Mapping[str, str], named: bool) -> Exception:
        """What an error means for this question and for the others."""
        server, words = self.config.server, self._words(error.words)
        limited = status == 429 and error.code != "insufficient_quota"
        reason = f"{'rate limit' if limited else f'status {status}'}{': ' + words if words else ''}"
        subject = f"{error.parameter} {error.words}"
        if named and status in (400, 422, 500, 501) and "tool_choice" in subject:
            # LM Studio and others take a word only; with one function, "required" says the same.
            self._names_tool = False
            return RephrasedError(reason)
        of_all = bool(_OF_ALL_QUESTIONS.search(subject)) and not self._known
        if limited or status in (408, 409, 425) or (status >= 500 and not of_all):
            seconds = retry_after(headers, time.time)
            if seconds is not None and seconds > LONGEST_WAIT:
                wait = min(seconds, 1e9)
                return InputError(f"{server} asks to wait {wait:.0f} s; give the same command again later")
            return TryAgainError(reason, seconds)
        if status not in _ENDING and not of_all:
            return RefusedError(reason)
        way_out = {
            401: f"set {KEY_VARIABLE} to a key that {server} takes",
            402: "its account has no credit left",
            404: "name a model that the server has with --judge, and its address with --base-url",
            429: "its account has no credit left",
        }.get(status, "see --judge, --base-url and --judge-temperature")
        return InputError(f"{server} refuses ({reason}); {way_out}")


def retry_after(headers: Mapping[str, str], now: Callable[[], float]) -> float | None:
    """Seconds that a server asks to wait: a number, or a date; None where it does not say."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value, seconds = headers.get(name, ""), math.nan
        try:
            seconds = float(value) * unit
        except ValueError:
            with suppress(ValueError, OverflowError, OSError):
                seconds = parsedate_to_datetime(value).timestamp() - now()
        if not math.isnan(seconds):
            return max(0.0, seconds)
    return None


def _broken(error: BaseException) -> str:
    """Why there was no connection, as the system says it ("connection refused"), or what broke it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[0].lower() + cause.strerror[1:]
        if isinstance(cause, httpx2.HTTPError):
            error = cause
        cause = cause.__cause__ or cause.__context__
    return f"the connection broke: {type(error).__name__}"


class _Error(NamedTuple):
    """What the body of an error says."""

    words: str
    code: Any = None
    parameter: str = ""


def _error(text: str) -> _Error:
    """Read the body of an error as OpenAI's protocol, FastAPI, or the gateways before them write it."""
    try:
        body = json.loads(text[:LARGEST_REPLY])
    except (ValueError, RecursionError):  # A page, mostly: its text, without its markup.
        return _Error(re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^<>]*>", " ", text[:4096]))
    match body:
        case {"error": dict(inner)}:
            body = inner
    match body:
        case {"detail": [{"loc": [*place], "msg": str(words)}, *_]}:
            return _Error(f"{'.'.join(map(str, place))}: {words}")
        case {"message": str(words)} | {"detail": str(words)} | {"error": str(words)}:
            return _Error(words, body.get("code"), str(body.get("param") or ""))
    return _Error(text[:LARGEST_REPLY])
