"""Turn stories into a folder of tokens."""

import sys

from frailt.options import parse


def run(args: list[str]) -> None:
    from frailt.console import ProgressLine
    from frailt.data.prepare import PrepareConfig, prepare, quiet

    config = parse(PrepareConfig, "prepare", args, __doc__)
    with ProgressLine() as line:
        result = prepare(config, report=line.show if sys.stderr.isatty() else quiet)
    train, valid = result.manifest.train, result.manifest.valid
    print(
        f"{result.folder}: {train.stories:,} training stories ({train.tokens:,} tokens), "
        f"{valid.stories:,} for validation ({valid.tokens:,} tokens)" + ("" if result.fresh else ", prepared before")
    )
