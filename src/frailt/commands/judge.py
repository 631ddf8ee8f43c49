"""Grade models' stories by a language model, or measure them without one."""

from frailt.errors import InputError

COMMANDS = {
    "grade": "Have a judge grade models' stories.",
    "calibrate": "Measure a judge: real endings of stories against spoiled ones.",
    "pairwise": "Have a judge compare two models, story by story, in both orders.",
    "offline": "Measure stories without a judge; no measure is a grade.",
}


def run(args: list[str]) -> None:
    if args and args[0] in ("-h", "--help"):
        print(f"usage: frailt judge COMMAND [OPTIONS]\n\n{__doc__}\n")
        for name, text in COMMANDS.items():
            print(f"  {name:9}  {text}")
        print("\n`frailt judge MODEL...` is `frailt judge grade MODEL...`.")
        print("`frailt judge COMMAND --help` shows its options.")
        return
    for old in ("--calibrate", "--pairwise", "--offline"):
        if old in args:
            raise InputError(f"{old} is a command now: write `frailt judge {old[2:]} ...`")
    name, rest = (args[0], args[1:]) if args and args[0] in COMMANDS else ("grade", args)
    from frailt.commands import judging

    getattr(judging, name)(rest, COMMANDS[name])
