"""Where the real data lies on the machines that have it; it is not part of the repository."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
STORIES = SHARED / "data" / "tinystories"
TOK512 = SHARED / "data" / "llama2c"
needs_shared = pytest.mark.skipif(not STORIES.is_dir(), reason="the TinyStories sample is not on this machine")
