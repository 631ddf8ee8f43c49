"""Damaged files, by chance but the same each time, for tests that ask of every reader one clear line."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from frailt.errors import InputError

VALUES: list[Any] = [
    *(None, True, 0, -1, 0.5, 1e308, 2**70, 10**400, float("nan"), "", "x" * 300, "\ud800", "a\nb\x1b[31m"),
    *([], {}, [[]] * 3, [1, 2], {"a": 1}),
]
"""What a field of a JSON file may hold by mistake."""


def damaged_bytes(content: bytes, count: int, *, seed: int = 0) -> Iterator[bytes]:
    """``count`` times ``content`` with bits flipped, bytes cut, put in, copied or overwritten."""
    random = Random(seed)
    for _ in range(count):
        data, at = bytearray(content), random.randrange(len(content))
        match random.randrange(7):
            case 0:
                data[at] ^= 1 << random.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + random.randrange(1, 40)]
            case 3:
                data[at:at] = random.randbytes(random.randrange(1, 20))
            case 4:
                data[at : at + 4] = random.choice([b"\xff\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f"])
            case 5:
                data[at : at + 16] = data[: random.randrange(1, 17)]
            case 6:
                data[at : at + 1] = b"\x80" * random.randrange(1, 12)
        yield bytes(data)


def damaged_json(content: bytes, count: int, *, seed: int = 0) -> Iterator[bytes]:
    """``count`` times a JSON file with a value replaced, left out or added, and now and then damaged as bytes."""
    random, whole = Random(seed), json.loads(content)
    for damaged in damaged_bytes(content, count, seed=seed):
        if random.random() < 0.3:
            yield damaged
            continue
        value = copy.deepcopy(whole)
        container, key = random.choice(list(_places(value)))
        if random.random() < 0.2:
            del container[key]
        elif isinstance(container, dict) and random.random() < 0.1:
            container["new"] = random.choice(VALUES)
        else:
            container[key] = random.choice(VALUES)
        yield json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with every key; of long lists the first 20."""
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 20)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def check_refusals(path: Path, contents: Iterator[bytes], read: Callable[[Path], object]) -> int:
    """Write each of ``contents`` to ``path`` and read it: that works, or ends in one short line without control
    characters that names the file or its folder. Returns how many were refused."""
    refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            read(path)
        except InputError as error:
            refused += 1
            message = str(error)
            assert str(path.parent) in message
            assert message.isprintable(), message
            assert len(message.replace(str(path.parent), "")) < 300, message
    return refused
