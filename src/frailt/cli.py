"""The command line: find the command, run it, say in one line what went wrong."""

import io
import os
import sys
import tempfile
import traceback
from types import ModuleType

from frailt.commands import compare, evaluate, export, info, judge, plan, prepare, reproduce, story, sweep, train
from frailt.errors import InputError, excerpt
from frailt.launch import rank_info

COMMANDS: dict[str, ModuleType] = {
    "prepare": prepare,
    "train": train,
    "compare": compare,
    "sweep": sweep,
    "reproduce": reproduce,
    "evaluate": evaluate,
    "story": story,
    "judge": judge,
    "plan": plan,
    "info": info,
    "export": export,
}
"""Modules of ``frailt.commands`` by the word that calls them, in the order of the help text."""

LONGEST_MESSAGE = 600
"""Characters of a message that are shown; what foreign libraries say can be pages long."""

AFTER_CTRL_C = {
    "train": "; add --resume to go on",
    **dict.fromkeys(("compare", "sweep", "reproduce", "judge"), "; the same command goes on from here"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status: 0, 1 for what the system refuses, 2 for bad input, 70 for an error of ours, 130
    after Ctrl-C."""
    _open_streams()
    verb, *args = (sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        try:
            _run(verb, args)
        finally:
            sys.stdout.flush()  # So that a reader who has left is noticed here, and not at exit.
    except SystemExit as exit:  # After --help.
        return int(exit.code or 0)
    except InputError as error:
        return _say(f"{error}", 2)
    except BrokenPipeError:
        # The reader has left (`| head`); keep Python from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _say(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), 1)
    except MemoryError:
        return _say("there is not enough memory for this; try a smaller model, context, batch or text", 1)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return _say(f"stopped{AFTER_CTRL_C.get(verb, '')}", 130)
    except Exception as error:
        return _say_unforeseen(error)
    return 0


def _run(verb: str, args: list[str]) -> None:
    if verb in COMMANDS and verb != "train" and rank_info().world_size > 1:
        raise InputError(f"{verb} runs in one process; only `frailt train` can be started with torchrun")
    if verb in COMMANDS:
        COMMANDS[verb].run(args)
    elif verb in ("-h", "--help"):
        print("usage: frailt COMMAND [OPTIONS]\n")
        print("Language models that think longer instead of growing larger.\n")
        for name, command in COMMANDS.items():
            print(f"  {name:9} {command.__doc__}")
        print("\n`frailt COMMAND --help` shows its options.")
    elif verb == "--version":
        from importlib.metadata import version

        print(f"frailt {version('frailt')}")
    else:
        raise InputError(f"there is no command {excerpt(verb)!r}; choose one of {', '.join(COMMANDS)}")


def _open_streams() -> None:
    """A stream that is closed (`>&-`) swallows what is written; one that cannot show a character shows a ?."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif name == "stdout" and isinstance(sys.stdout, io.TextIOWrapper):  # Notebooks have streams of their own.
            sys.stdout.reconfigure(errors="replace")


def _say(message: str, status: int) -> int:
    """Print one line on stderr, whatever a message quotes; the status to leave with."""
    message = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message)
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[: LONGEST_MESSAGE - 200]} … {message[-200:]}"
    # The processes that torchrun starts meet the same mistake, or learn of it; one of them says so on each machine.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"frailt: {message}", file=sys.stderr)
    return status


def _say_unforeseen(error: Exception) -> int:
    """Where nobody foresaw the error, its traceback goes to a file: it is for us, and one line is for the user."""
    text = "".join(traceback.format_exception(error))
    if os.environ.get("FRAILT_DEBUG"):
        print(text, end="", file=sys.stderr)
        return 70
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="frailt-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
        where = f"in {file.name}"
    except OSError:
        where = "with FRAILT_DEBUG=1"
    summary = " ".join(traceback.format_exception_only(error)[-1].split())[:200]
    return _say(f"an error in frailt: {summary}; the details, for a bug report, stand {where}", 70)
