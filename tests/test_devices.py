"""The block compiled, and the same run on a GPU.

Each test is a script in a process of its own: torch's compiler cannot see through the type checks of conftest.py.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

START = """
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, sys.argv[1])
from corpora import make_chain
from frailt.model.cache import Cache
from frailt.model.config import ModelConfig
from frailt.model.frailt import FraiLT
from frailt.training.config import TrainConfig
from frailt.training.run_folder import RunFolder
from frailt.training.compiled import compile_blocks
from frailt.training.trainer import train

torch.manual_seed(0)
CONFIG = TrainConfig(
    model=ModelConfig(shape="1^3+(2)^2", dim=16, heads=2, vocab_size=300, context=32),
    tokens=10 * 4 * 32,
    evaluations=1,
    device="cpu",
    precision="float32",
)
folder = Path(tempfile.mkdtemp(dir=sys.argv[2]))
corpus = make_chain(folder / "chain")
tokens = torch.randint(0, 300, (2, 32))


def losses(name, config):
    train(config, corpus, folder / name)
    return [line.loss for line in RunFolder(folder / name).metrics() if line.loss is not None]


def near(a, b, tolerance):
    assert len(a) == len(b) and all(abs(x - y) < tolerance for x, y in zip(a, b)), (a, b)
"""

COMPILED_ONCE = """
model = FraiLT(CONFIG.model)
eager = model(tokens).logits
compile_blocks(model)
torch.testing.assert_close(model(tokens).logits, eager)
other = FraiLT(replace(CONFIG.model, shape="2"))
eager = other(tokens).logits
compile_blocks(other)
torch.testing.assert_close(other(tokens).logits, eager)
graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
assert graphs == 1, f"{graphs} graphs for 5 blocks, 9 passes, 3 groups and 2 models of one width"
"""

COMPILED_EAGERLY = """
from functools import partial
torch.compile = partial(torch.compile, backend="eager")
for graphs, dim in enumerate((16, 24, 32), 1):
    model = replace(CONFIG.model, dim=dim)
    config = replace(CONFIG, model=model, tokens=4 * 4 * 32, evaluations=2, eval_tokens=100)
    near(losses(f"compiled {dim}", replace(config, compile=True)), losses(f"eager {dim}", config), 1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs, "one a width; validation compiles none"
assert not torch._dynamo.utils.counters["graph_break"]
"""

GPU_AGREES = """
near(losses("cuda", replace(CONFIG, device="cuda")), losses("cpu", CONFIG), 1e-3)
"""

GPU_COMPILED = """
fast = replace(CONFIG, device="cuda", precision="bfloat16", compile=True)
near(losses("fast", fast), losses("cpu", CONFIG), 0.03)
"""

GPU_CACHE = """
model = FraiLT(CONFIG.model).cuda().eval()
cache, tokens = Cache(32), tokens.cuda()
with torch.inference_mode():
    parts = torch.cat([model(piece, cache).logits for piece in tokens.split(8, dim=1)], dim=1)
    torch.testing.assert_close(parts, model(tokens).logits, atol=1e-4, rtol=1e-4)
"""


def run(script: str, folder: Path) -> None:
    command = [sys.executable, "-c", START + script, str(Path(__file__).parent), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("g++") is None and sys.platform == "linux", reason="compile=True looks for a compiler")
def test_each_width_is_compiled_once_and_trains_as_without(tmp_path: Path) -> None:
    run(COMPILED_EAGERLY, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_block_is_compiled_once_for_all_passes_groups_and_models(tmp_path: Path) -> None:
    run(COMPILED_ONCE, tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("script", [GPU_AGREES, GPU_COMPILED, GPU_CACHE], ids=["losses", "compiled bf16", "cache"])
def test_a_gpu_agrees_with_the_cpu(script: str, tmp_path: Path) -> None:
    run(script, tmp_path)
