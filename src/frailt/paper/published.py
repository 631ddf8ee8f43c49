"""The paper's published numbers, as data. Widths are its "embedding dim"; losses are nats per token."""

TABLE_2: dict[int, dict[str, float]] = {
    64: {"1": 1.685, "2": 1.409, "4": 1.212, "8": 1.067},
    128: {"1": 1.401, "2": 1.077, "4": 0.923, "8": 0.817},
    256: {"1": 1.209, "2": 0.874, "4": 0.739, "8": 0.661},
    512: {"1": 1.071, "2": 0.751, "4": 0.632, "8": 0.582},
    1024: {"1": 0.967, "2": 0.670, "4": 0.590, "8": 0.524},
}
"""Validation loss of the standard models, by width and shape."""

TABLE_3: dict[int, dict[str, float]] = {
    64: {"1^2": 1.586, "1^8": 1.522, "2^4": 1.348, "4^2": 1.190},
    128: {"1^2": 1.215, "1^8": 1.136, "2^4": 1.007, "4^2": 0.895},
    256: {"1^2": 0.969, "1^8": 0.887, "2^4": 0.791, "4^2": 0.716},
    512: {"1^2": 0.796, "1^8": 0.712, "2^4": 0.648, "4^2": 0.601},
    1024: {"1^2": 0.681, "1^8": 0.596, "2^4": 0.559, "4^2": 0.533},
}
"""Validation loss of the FraiLT models, by width and shape."""


def published_loss(dim: int, shape: str) -> float | None:
    """The loss that the paper gives for a cell, if it has that cell."""
    return (TABLE_2.get(dim, {}) | TABLE_3.get(dim, {})).get(shape)
