"""One question to a judge, and what counts as an answer.

The judge answers by calling a function (a "tool") whose arguments are a pydantic model. An answer counts only if it is
exactly that: a call is there, its arguments are JSON, no field is missing or unknown, every grade is a whole number
from 1 to 10. Anything else is a fault, which is named and never mended.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from frailt.evaluation.judge.prompt import COMPARE, GRADE, Prompt

METRICS = ("grammar", "creativity", "consistency", "plot")
"""The four grades of section 3.3, in the order of Table 4."""

_Grade = Annotated[int, Field(ge=1, le=10)]
_Assessment = Annotated[str, Field(min_length=1, max_length=8000)]


class Grades(BaseModel):
    """Grades of a student's completion of a story."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    assessment: _Assessment
    """Before the grades, so that they follow from it."""
    grammar: _Grade
    creativity: _Grade
    consistency: _Grade
    plot: _Grade


class Choice(BaseModel):
    """The better one of two completions of a story."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    assessment: _Assessment
    better: Literal["first", "second", "neither"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A prompt and the function by which a judge answers it."""

    tool: str
    prompt: Prompt
    answer: type[BaseModel]

    def request(self, beginning: str, *completions: str) -> dict[str, Any]:
        """The part of a chat request that says what is asked."""
        schema = self.answer.model_json_schema()
        function = {"name": self.tool, "description": self.answer.__doc__, "parameters": schema}
        return {
            "messages": [{"role": "user", "content": self.prompt.fill(beginning, *completions)}],
            "tools": [{"type": "function", "function": function}],
            "tool_choice": {"type": "function", "function": {"name": self.tool}},
        }


def grade_form(prompt: Prompt = GRADE) -> Form:
    """The form that asks for four grades."""
    return Form(tool="grade_completion", prompt=prompt, answer=Grades)


def compare_form() -> Form:
    """The form that asks for the better one of two."""
    return Form(tool="choose_completion", prompt=COMPARE, answer=Choice)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What came back from one call."""

    answer: dict[str, Any] | None = None
    """The fields of the form's answer; None where the reply was faulty."""
    fault: str | None = None
    """Why it is none, in this project's words."""
    raw: str | None = None
    """The start of a faulty reply."""
    prompt_tokens: int | None = None
    """As the server counts; None where it does not say."""
    completion_tokens: int | None = None
    seconds: float = 0.0
    refused: bool = False
    """Whether the server would not take the question at all; ``fault`` has its words."""


class FaultError(Exception):
    """A reply that is no answer."""


def read_reply(reply: dict[str, Any], text: str, form: Form, seconds: float) -> Reply:
    """Read a chat completion; ``text`` is the same as it was sent."""
    usage = reply["usage"] if isinstance(reply.get("usage"), dict) else {}
    answer, fault = None, None
    try:
        answer = _answer(_arguments(reply, form.tool), form)
    except FaultError as error:
        cut_off = reply["choices"][0].get("finish_reason") == "length"
        fault = f"{error}{', cut off at the limit of tokens' if cut_off else ''}"
    return Reply(
        answer=answer,
        fault=fault,
        raw=text[:2000] if fault else None,
        prompt_tokens=_tokens(usage.get("prompt_tokens")),
        completion_tokens=_tokens(usage.get("completion_tokens")),
        seconds=seconds,
    )


def _arguments(reply: dict[str, Any], tool: str) -> Any:
    """The arguments of the one call of the form's function."""
    match reply:
        case {"choices": [{"message": {"tool_calls": [*calls]}}, *_]} if calls:
            pass
        case _:
            raise FaultError("no tool call")
    arguments = []
    for call in calls:
        match call:
            case {"function": {"name": str(name), "arguments": value}} if name == tool:
                arguments.append(value)
    if len(arguments) != 1 or len(calls) != 1:
        raise FaultError(f"not one call of {tool} but {len(calls)} calls, {len(arguments)} of it")
    return arguments[0]


def _answer(arguments: Any, form: Form) -> dict[str, Any]:
    # A string of JSON by the protocol; some servers hand the object itself over.
    values = parse_object(arguments, "the call") if isinstance(arguments, str) else arguments
    try:
        return form.answer.model_validate(values).model_dump()
    except ValidationError as error:
        faults = []
        for item in error.errors(include_input=False, include_url=False, include_context=False):
            field = str(item["loc"][0]) if item["loc"] else "the call"
            known = field in form.answer.model_fields or not item["loc"]
            faults.append(f"{field if known else 'an unknown field'}: {item['type']}")
        raise FaultError("; ".join(sorted(set(faults)))) from None


def parse_object(text: str, what: str) -> dict[str, Any]:
    """Read JSON and nothing like it: no NaN, no name twice in one object, no depth that ends the program.

    Raises:
        FaultError: ``what`` is not a JSON object.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise FaultError(f"{what} is not JSON") from None
    if not isinstance(value, dict):
        raise FaultError(f"{what} is not a JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _tokens(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


MOST_TOKENS = 2**40
"""A server that counts more for one reply cannot count."""

Clean = Callable[[Any], Any]
"""Takes every trace of the key out of a value that is to be stored or shown."""
