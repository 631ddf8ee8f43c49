"""``python -m frailt`` is ``frailt``: the form in which torchrun starts it."""

import os
import sys

from frailt.cli import main

status = main()
if "RANK" in os.environ:
    # gloo's threads live as long as the process, and now and then abort a Python that is shut down around them.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
sys.exit(status)
