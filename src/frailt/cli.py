"""The command line: find the command, run it, say in one line what went wrong."""

import os
import sys
from types import ModuleType

from frailt.commands import compare, evaluate, export, info, judge, plan, prepare, reproduce, story, train
from frailt.errors import InputError
from frailt.launch import rank_info
from frailt.options import split_words

COMMANDS: dict[str, ModuleType] = {
    "prepare": prepare,
    "train": train,
    "compare": compare,
    "reproduce": reproduce,
    "evaluate": evaluate,
    "story": story,
    "judge": judge,
    "plan": plan,
    "info": info,
    "export": export,
}
"""Modules of ``frailt.commands`` by the word that calls them, in the order of the help text."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    # What is not text in the terminal's encoding arrives as lone surrogates, which no tokenizer can read.
    words = [word.encode(errors="replace").decode() for word in split_words(sys.argv[1:] if argv is None else argv)]
    verb, args = (words[0], words[1:]) if words else ("--help", [])
    try:
        _run(verb, args)
        sys.stdout.flush()
        return 0
    except InputError as error:
        _say(f"frailt: {error}")
        return 2
    except BrokenPipeError:
        # The reader has left (`| head`); keep Python from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _say(f"frailt: {error.strerror or error}{where}")
        return 1
    except KeyboardInterrupt:
        again = dict.fromkeys(("compare", "reproduce", "judge"), "; the same command goes on from here")
        _say(f"\nfrailt: stopped{({'train': '; it goes on with --resume'} | again).get(verb, '')}")
        return 130


def _say(line: str) -> None:
    # The processes that torchrun starts meet the same mistake, or learn of it; one of them says so on each machine.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(line, file=sys.stderr)


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
        raise InputError(f"there is no command {verb!r}; choose one of {', '.join(COMMANDS)}")
