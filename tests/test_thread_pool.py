"""The decoder's threads: how many, and that none is waited for in vain. What ends processes runs in its own."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from models import PROMPTS, TOKENIZER, random_tokens, stored, tiny

from frailt.inference.cpu import thread_pool
from frailt.inference.cpu.decoder import CompiledDecoder, CompiledStoryteller
from frailt.inference.cpu.packing import pack
from frailt.inference.cpu.thread_pool import STRETCH, TRIAL, ThreadCount
from frailt.inference.sampling import Sampling
from frailt.model.checkpoint import save_model

SCRIPT = """
import os, signal, sys, threading
from pathlib import Path
import numpy as np
from frailt.inference.cpu.decoder import CompiledDecoder
from frailt.inference.cpu.packing import pack
from frailt.model.stored import read_model

packed = pack(read_model(Path(sys.argv[1])))
tokens = np.random.default_rng(0).integers(0, 40, 30).tolist()

def alone():
    decoder = CompiledDecoder(packed, threads=1)
    return np.concatenate([decoder.add([tokens[:1]]), *(decoder.step([token]) for token in tokens[1:])])

def go_on(decoder, start):
    for place in range(start, len(tokens)):
        assert np.array_equal(decoder.step([tokens[place]])[0], right[place]), place

right = alone()
"""


def run(script: str, folder: Path) -> str:
    """What a script says; it fails where it takes too long, as a thread does that waits for ever."""
    save_model(tiny("1^3", dim=32), folder)
    command = [sys.executable, "-c", SCRIPT + script, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout


def test_an_interrupt_leaves_a_decoder_that_is_right(tmp_path: Path) -> None:
    script = """
decoder = CompiledDecoder(packed, threads=2)
decoder.add([tokens[:1]])  # Code is compiled.
signal.signal(signal.SIGALRM, signal.default_int_handler)
for delay in range(300):
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4 + 2e-6 * delay)
        while True:
            decoder.select([])
            scores = decoder.add([tokens[:3]])
            for place in range(3, 12):
                assert np.array_equal(scores[0], right[place - 1]), place
                scores = decoder.step([tokens[place]])
    except KeyboardInterrupt:
        pass
decoder.select([])
decoder.add([tokens[:3]])
go_on(decoder, 3)
print("right")
"""
    assert run(script, tmp_path) == "right\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_goes_on(tmp_path: Path) -> None:
    script = """
decoder = CompiledDecoder(packed, threads=2)
decoder.add([tokens[:3]])
child = os.fork()
go_on(decoder, 3)
fresh = CompiledDecoder(packed, threads=2)
fresh.add([tokens[:1]])
go_on(fresh, 1)
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(script, tmp_path) == "0\n"


def test_where_no_thread_can_be_started_one_reads(tmp_path: Path) -> None:
    script = """
def refuse(self):
    raise RuntimeError("can't start new thread")

threading.Thread.start = refuse
decoder = CompiledDecoder(packed, threads=3)
decoder.add([tokens[:1]])
go_on(decoder, 1)
print(threading.active_count())
"""
    assert run(script, tmp_path) == "1\n"


def test_threads_of_python_share_a_storyteller() -> None:
    model = tiny("1^3", vocab_size=TOKENIZER.vocab_size, context=64)
    storyteller = CompiledStoryteller(pack(stored(model)), TOKENIZER, threads=2)
    samplings = [Sampling(max_tokens=30, seed=seed) for seed in range(4)]
    expected = [storyteller.generate(PROMPTS, sampling) for sampling in samplings]
    texts: list[list[str]] = [[] for _ in samplings]

    def write(number: int) -> None:
        texts[number] = storyteller.generate(PROMPTS, samplings[number])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(samplings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == expected


def test_decoders_use_the_pool_in_turn() -> None:
    packs = [pack(stored(tiny(shape, dim=dim, heads=2))) for shape, dim in (("1^3", 32), ("2", 48))]
    first, *tokens = random_tokens(20).tolist()
    alone, together = ([CompiledDecoder(packed, threads=threads) for packed in packs] for threads in (1, 3))
    for decoder, other in zip(alone, together, strict=True):
        assert np.array_equal(decoder.add([[first]]), other.add([[first]]))
    for token in tokens:
        for decoder, other in zip(alone, together, strict=True):
            assert np.array_equal(decoder.step([token]), other.step([token]))


# How many threads


def rates(count: ThreadCount, seconds: dict[int, float], tokens: int) -> list[int]:
    """With how many threads each of ``tokens`` is read when each takes so many ``seconds``."""
    chosen = []
    for _ in range(tokens):
        chosen.append(count.threads)
        count.record(count.threads, 1, seconds[count.threads])
    return chosen


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({1: 4.0, 2: 3.0, 4: 2.0, 6: 1.0}, {1: 1.0, 2: 2.0, 4: 3.0, 6: 4.0}),
        ({1: 1.0, 2: 2.0, 4: 3.0, 6: 4.0}, {1: 3.0, 2: 1.0, 4: 3.0, 6: 4.0}),
        ({1: 2.0, 2: 1.0, 4: 2.0, 6: 9.0}, {1: 3.0, 2: 2.0, 4: 1.0, 6: 9.0}),
    ],
)
def test_most_tokens_are_read_the_fastest_way(before: dict[int, float], after: dict[int, float]) -> None:
    count = ThreadCount(6)
    count.record(1, 1, 100.0)  # The first time takes long and says nothing.
    for seconds, share in ((before, 0.9), (after, 0.6)):  # It changes its mind when the machine does.
        chosen = rates(count, seconds, 10 * (STRETCH + TRIAL))
        assert chosen.count(min(seconds, key=seconds.__getitem__)) > share * len(chosen)


def test_a_trial_that_goes_badly_is_short() -> None:
    count = ThreadCount(4)
    count.record(1, 1, 100.0)
    chosen = rates(count, {1: 1.0, 2: 50.0, 4: 1.0}, 10 * (STRETCH + TRIAL))
    assert 10 <= chosen.count(2) <= 11, "one token each time"
    assert chosen.count(4) == 0


def test_one_thread_stays_one() -> None:
    assert set(rates(ThreadCount(1), {1: 1.0}, 600)) == {1}


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 64), ("250000 100000", 3), ("50000 100000", 1), ("", 64), ("9 0", 64)]
)
def test_a_container_s_quota_of_cores_counts(
    quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(thread_pool, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    assert thread_pool.cores() == expected
