"""How a model is named in tables, in folders and on the command line: a shape, and what else is special about it.

``1^8`` is a shape alone. Settings follow a colon: ``1^8:none`` is without encodings (a bare word is the encoding), and
``1^8:none,tied=false`` sets another field of the model's config, or of its training, too.
"""

import dataclasses
import json
import re
from dataclasses import dataclass, replace
from typing import Any

from frailt.configs import from_json
from frailt.errors import InputError, excerpt
from frailt.files import parse_json
from frailt.model.config import ModelConfig
from frailt.model.shape import Shape

FIXED = frozenset({"shape", "vocab_size", "context"})
"""Fields of the model that no variant sets: models that differ in them do not read the same text."""
SIZES = frozenset({"dim", "heads", "kv_heads", "hidden_dim", "multiple_of"})
"""Fields that stand beside a model's name, in columns of their own, and not in it."""
LOOP = frozenset({"encoding", "passes", "late"})
"""Settings of the passes alone, which a standard model does not have."""
_FIELDS = frozenset(field.name for field in dataclasses.fields(ModelConfig))
_SETTING = re.compile(r"[a-z]\w*=[\w.+-]+", re.ASCII)
_PAPERS = "learned"
"""The paper's encoding, which is not mentioned."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A model's name, taken apart. Equal variants have equal texts (``str(variant)``)."""

    shape: Shape
    settings: tuple[tuple[str, Any], ...] = ()
    """Field and value, the encoding before all others, which are sorted; the paper's encoding is not listed."""

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """Read ``SHAPE[:SETTING,...]``.

        Raises:
            InputError: it is not such a name.
        """
        name, colon, rest = text.replace(" ", "").partition(":")
        settings: dict[str, Any] = {}
        for item in rest.split(",") if colon else ():
            field, value = item.split("=", 1) if "=" in item else ("encoding", item)
            if not _SETTING.fullmatch(f"{field}={value}") or field in settings:
                raise InputError(
                    f"model {excerpt(text)!r} is not understood at {excerpt(item)!r}; after the colon write an "
                    "encoding, like 1^8:none, or settings, like 1^8:none,tied=false"
                )
            settings[field] = value
        shape = Shape.parse(name)
        if shape.standard and "encoding" in settings:
            raise InputError(
                f"shape {excerpt(text)!r} is a standard model and has no encodings; "
                f"leave out :{excerpt(settings['encoding'])}"
            )
        return cls.make(shape, {field: _value(value) for field, value in settings.items()}, source=text)

    @classmethod
    def make(cls, shape: Shape, settings: dict[str, Any], *, source: str = "") -> "Variant":
        """A variant of settings in any order.

        Args:
            shape: of the model.
            settings: values by field of the model or of its training. They are checked where they are used.
            source: the text that they come from, for messages.

        Raises:
            InputError: a field is the same for all models.
        """
        if barred := FIXED & settings.keys():
            raise InputError(
                f"{min(barred)} is the same for all models that are compared; leave it out of {excerpt(source)!r}"
            )
        rest = {field: value for field, value in settings.items() if (field, value) != ("encoding", _PAPERS)}
        return cls(shape, tuple(sorted(rest.items(), key=lambda item: (item[0] != "encoding", item[0]))))

    @classmethod
    def of(cls, config: ModelConfig, base: ModelConfig | None = None) -> "Variant":
        """The name of a model.

        Args:
            config: the model.
            base: what its settings are compared with; unset: the defaults, and sizes are left out.
        """
        shape = Shape.parse(config.shape)
        unnamed = FIXED | ({"encoding"} if shape.standard else frozenset())
        if base is None:
            base, unnamed = ModelConfig(), unnamed | SIZES
        base = replace(base, encoding=_PAPERS)
        fields = sorted(_FIELDS - unnamed)
        settings = {name: getattr(config, name) for name in fields if getattr(config, name) != getattr(base, name)}
        return cls.make(shape, settings)

    def __str__(self) -> str:
        settings = ",".join(v if name == "encoding" else f"{name}={_text(v)}" for name, v in self.settings)
        return f"{self.shape}:{settings}" if settings else str(self.shape)

    @property
    def slug(self) -> str:
        """A name for files that needs no quoting in a shell: ``(2)^4:none`` is ``g2x4-none``."""
        settings = (v if name == "encoding" else f"{name}_{_text(v)}" for name, v in self.settings)
        return "-".join((self.shape.slug, *(re.sub(r"[^\w.-]", "_", text, flags=re.ASCII) for text in settings)))

    @property
    def training(self) -> dict[str, Any]:
        """Settings that are no fields of the model: those of its training, which are checked where they are used."""
        return {name: value for name, value in self.settings if name not in _FIELDS}

    @property
    def shallow(self) -> "Variant":
        """The standard model with as many blocks as this one stores, and the same settings but for ``LOOP``."""
        return self._standard(self.shape.blocks)

    @property
    def deep(self) -> "Variant":
        """The standard model of the same effective depth, and the same settings but for ``LOOP``."""
        return self._standard(self.shape.depth)

    def _standard(self, blocks: int) -> "Variant":
        settings = tuple((name, value) for name, value in self.settings if name not in LOOP)
        return Variant(Shape.parse(str(blocks)), settings)

    def model(self, base: ModelConfig) -> ModelConfig:
        """The config of this model; all that it does not name is as in ``base``, but for the encoding.

        Raises:
            InputError: a setting has no such value, or the settings do not go together.
        """
        settings = {name: value for name, value in self.settings if name in _FIELDS}
        stored = {**dataclasses.asdict(base), "encoding": _PAPERS, **settings, "shape": str(self.shape)}
        return from_json(ModelConfig, stored, f"model {excerpt(str(self))!r}")


def _value(text: str) -> Any:
    """A setting's value: a JSON value where it is one, else a word."""
    try:
        value = parse_json(text, "a setting")
    except InputError:
        return text
    return value if isinstance(value, int | float | None) else text


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value)


def split_names(text: str) -> tuple[str, ...]:
    """Names of models that are joined by commas, as their settings are too: ``1,1^8:none,tied=false,8`` are three."""
    names: list[str] = []
    for item in text.split(","):
        if names and ":" in names[-1] and item.lstrip()[:1].isalpha():
            names[-1] += f",{item}"
        else:
            names.append(item)
    return tuple(names)
