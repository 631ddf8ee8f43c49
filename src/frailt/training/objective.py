"""What training minimises.

Another objective (a ponder cost, a loss at every pass, distillation) is a function of the same kind: it gets all that
the forward pass gave, the states after each pass too.
"""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from frailt.model.frailt import Output


def cross_entropy(output: Output, targets: Int[Tensor, "batch time"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of the next token, in nats. The logits are float32: a loss in bfloat16 has three digits."""
    return F.cross_entropy(output.logits.flatten(0, 1), targets.flatten())
