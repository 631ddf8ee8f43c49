"""Write a model as the files of another program."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from frailt.errors import InputError
from frailt.options import Words, megabytes, parse, passes


def run(args: list[str]) -> None:
    from frailt.export.gguf import Rounding, save_gguf
    from frailt.export.plain_llama import plain_llama
    from frailt.export.transformers import save_transformers
    from frailt.inference.storyteller import tokenizer_of
    from frailt.model.stored import read_model

    @dataclass(frozen=True, kw_only=True)
    class Command:
        model: Words[Path]
        """Run folder, saved model, or llama2.c .bin."""
        to: Literal["transformers", "gguf"]
        """A folder for transformers (LlamaForCausalLM), or a file for llama.cpp."""
        out: Path
        """Folder or file to write; it must not exist yet, or be an empty folder."""
        tokenizer: Path | None = None
        """Tokenizer of a .bin; unset: the tok*.model or tok*.bin beside it."""
        passes: str | None = None
        """Passes through each group that has several, or a number for each group: 4 or 1,4,1; unset: as trained."""
        weights: Rounding = "float32"
        """Type of a GGUF file's matrices; int8 is Q8_0."""

    command = parse(Command, "export", args, __doc__)
    if command.to == "transformers" and command.weights != "float32":
        raise InputError("--weights is for gguf; leave it out, transformers can round while loading (dtype=...)")
    model = read_model(command.model)
    tokenizer = tokenizer_of(command.model, model.config, command.tokenizer)
    llama = plain_llama(model, passes(command.passes))
    if command.to == "gguf":
        save_gguf(llama, tokenizer, command.out, weights=command.weights)
    else:
        save_transformers(llama, tokenizer, command.out)
    files = [command.out] if command.out.is_file() else [*command.out.iterdir()]
    size = megabytes(sum(file.stat().st_size for file in files))
    print(
        f"{command.out}: shape {model.config.shape} as a Llama of {len(llama.layers)} layers, {size}, {command.weights}"
    )
