"""Turn stories into a folder of tokens."""

import sys

from frailt.options import parse


def run(args: list[str]) -> None:
    from frailt.data.prepare import PrepareConfig, prepare

    config = parse(PrepareConfig, "prepare", args, __doc__)
    result = prepare(config, progress=sys.stderr.isatty())
    train, valid = result.manifest.train, result.manifest.valid
    print(
        f"{result.folder}: {train.stories:,} training stories ({train.tokens:,} tokens), "
        f"{valid.stories:,} for validation ({valid.tokens:,} tokens)" + ("" if result.fresh else ", prepared before")
    )
