"""``python -m frailt`` is ``frailt``: the form in which torchrun starts it."""

import sys

from frailt.cli import main

sys.exit(main())
