"""What the model says of itself as data: its tensors, its operations, its encodings; and who refuses what."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
from models import stored, tiny

from frailt.errors import InputError
from frailt.export.plain_llama import plain_llama
from frailt.inference.cpu.packing import pack
from frailt.model import operations as module
from frailt.model.encodings import ENCODINGS, EncodingKind, IterationEncoding, encoding_vector
from frailt.model.frailt import Encoding, FraiLT
from frailt.model.operations import Encode, Transform, operations
from frailt.model.stored import StoredModel
from frailt.model.weights import weights

SHAPES = ["3", "1^4", "(2)^3", "1+(2)^2+1", "1^2+2"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("encoding", get_args(EncodingKind))
@pytest.mark.parametrize("tied", [True, False])
def test_the_table_of_weights_is_that_of_the_model(shape: str, encoding: EncodingKind, tied: bool) -> None:
    model = tiny(shape, encoding=encoding, tied=tied, kv_heads=1, hidden_dim=20)
    assert [(name, weight.shape) for name, weight in weights(model.config).items()] == [
        (name, tuple(p.shape)) for name, p in model.named_parameters()
    ]


def test_operations_are_those_of_the_equation() -> None:
    config = tiny("1+(2)^2").config
    encoded = [step for m in (1, 2) for block in (1, 2) for step in (Encode(block, m), Transform(block, m))]
    assert list(operations(config, (1, 2))) == [Transform(0, 1), *encoded]
    assert list(operations(tiny("(2)^2", encoding="none").config, (1,))) == [Transform(0, 1), Transform(1, 1)]


@pytest.mark.parametrize("name", get_args(EncodingKind))
def test_encodings_are_the_same_in_torch_and_numpy(name: EncodingKind) -> None:
    """Past M too."""
    assert set(ENCODINGS) == set(get_args(EncodingKind))
    kind = ENCODINGS[name]
    if kind is None:
        return
    encoding = Encoding(kind(3, 16))
    for parameter in encoding.parameters():
        torch.nn.init.normal_(parameter)
    learned = {name: p.detach().numpy() for name, p in encoding.named_parameters()}
    for m in range(1, 6):
        added = encoding(torch.zeros(1, 1, 16), m).detach().numpy()[0, 0]
        vector = encoding_vector(encoding.rule, m, learned)
        assert vector is not None
        np.testing.assert_allclose(vector, added, rtol=0, atol=1e-7)


@pytest.mark.parametrize("program", [pack, plain_llama])
def test_a_tensor_that_a_program_does_not_know_is_refused(program: Any) -> None:
    config, tensors = stored(tiny("1^2"))
    for name in ("groups.0.injection.weight", "groups.0.blocks.0.gate.weight", "scale"):
        with pytest.raises(InputError, match=name):
            program(StoredModel(config, {**tensors, name: np.zeros((16, 16), np.float32)}))


class Scale(IterationEncoding):
    """An encoding that is more than an added vector."""

    def learned(self) -> dict[str, tuple[tuple[int, ...], float]]:
        return {"scale": ((self.iterations, self.dim), 0.1)}

    def apply(self, x: Any, m: int, tensors: Any, xp: Any) -> Any:
        return x * (1 + tensors.scale[min(m, self.iterations) - 1])


def test_an_encoding_that_is_no_vector_runs_in_torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODINGS, "learned", Scale)
    model = tiny("1^2")
    assert dict(model.named_parameters()).keys() == weights(model.config).keys()
    assert "groups.0.blocks.0.encoding.scale" in weights(model.config)
    tokens = torch.arange(5)[None]
    before = model(tokens).logits
    with torch.no_grad():
        model.get_parameter("groups.0.blocks.0.encoding.scale")[1] += 1
    assert (model(tokens).logits - before).abs().max() > 1e-3
    with pytest.raises(InputError, match="learned encodings do more"):
        pack(stored(model))
    with pytest.raises(InputError, match="learned encodings do more"):
        plain_llama(stored(model))


def test_an_operation_that_a_program_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = stored(FraiLT(tiny("1^2").config))
    monkeypatch.setattr(module, "operations", lambda *_: iter([Transform(0, 1), "inject"]))
    for program in (plain_llama, pack):
        with pytest.raises(InputError, match="does not know the operation inject"):
            program(model)
