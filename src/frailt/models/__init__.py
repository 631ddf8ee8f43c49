"""Models that come with the package: a folder each, with weights in bfloat16, tokenizer and a card (``README.md``)."""

from pathlib import Path

BEST = Path(__file__).parent / "tinystories-5x2"
"""The one with the lowest loss."""
