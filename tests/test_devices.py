"""The block compiled, and the same run on a GPU."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from corpora import make_chain

from frailt.model.frailt import FraiLT, ModelConfig
from frailt.training.config import TrainConfig
from frailt.training.run_folder import RunFolder
from frailt.training.trainer import compile_blocks, train

CONFIG = TrainConfig(
    model=ModelConfig(shape="1^3+(2)^2", dim=16, heads=2, vocab_size=300, context=32),
    tokens=10 * 4 * 32,
    evaluations=1,
    device="cpu",
)
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in RunFolder(folder).metrics() if "loss" in line]


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about itself
def test_a_block_is_compiled_once_for_all_passes_and_groups() -> None:
    torch.manual_seed(0)
    model = FraiLT(CONFIG.model)
    tokens = torch.randint(0, 300, (4, 32))
    eager = model(tokens).logits
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compile_blocks(model)
    torch.testing.assert_close(model(tokens).logits, eager)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.gpu
def test_a_gpu_run_agrees_with_the_cpu(tmp_path: Path) -> None:
    corpus = make_chain(tmp_path / "chain")
    train(CONFIG, corpus, tmp_path / "cpu")
    train(replace(CONFIG, device="cuda"), corpus, tmp_path / "cuda")
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), abs=1e-3)


@pytest.mark.gpu
def test_compiled_bfloat16_on_a_gpu(tmp_path: Path) -> None:
    corpus = make_chain(tmp_path / "chain")
    train(CONFIG, corpus, tmp_path / "cpu")
    config = replace(CONFIG, device="cuda", precision="bfloat16", compile=True)
    train(config, corpus, tmp_path / "fast")
    assert losses(tmp_path / "fast") == pytest.approx(losses(tmp_path / "cpu"), abs=0.03)


@pytest.mark.gpu
def test_cached_logits_on_a_gpu() -> None:
    from frailt.model.cache import Cache

    model = FraiLT(CONFIG.model).cuda().eval()
    compile_blocks(model)
    tokens = torch.randint(0, 300, (2, 9), device="cuda")
    cache = Cache(32)
    with torch.inference_mode():
        whole = model(tokens).logits
        parts = torch.cat([model(tokens[:, i : i + 3], cache).logits for i in (0, 3, 6)], dim=1)
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
