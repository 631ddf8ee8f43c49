"""Write a model as the files of another program."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from frailt.options import Words, megabytes, parse, passes


def run(args: list[str]) -> None:
    from frailt.export.gguf import save_gguf
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
        """Folder or file to write; it must not exist yet."""
        tokenizer: Path | None = None
        """Tokenizer of a .bin; unset: the tok*.model or tok*.bin beside it."""
        passes: str | None = None
        """Passes through each group that has several, or a number for each group: 4 or 1,4,1; unset: as trained."""

    command = parse(Command, "export", args, __doc__)
    model = read_model(command.model)
    tokenizer = tokenizer_of(command.model, model.config, command.tokenizer)
    llama = plain_llama(model, passes(command.passes))
    save = {"transformers": save_transformers, "gguf": save_gguf}[command.to]
    save(llama, tokenizer, command.out)
    files = [command.out] if command.out.is_file() else [*command.out.iterdir()]
    size = megabytes(sum(file.stat().st_size for file in files))
    print(f"{command.out}: shape {model.config.shape} as a Llama of {len(llama.layers)} layers, {size} in float32")
