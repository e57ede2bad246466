"""The optimizer of all networks that are trained."""

import math
from dataclasses import dataclass

import optax

from sparse_ad.errors import require


@dataclass(frozen=True)
class Adam:
    """Adam, with weight decay added to the gradient before it, as PyTorch's Adam does.

    Source: Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.
    """

    learning_rate: float = 1e-4  # size of a step, about, in units of a weight
    weight_decay: float = 1e-5  # this fraction of each weight is added to its gradient

    def __post_init__(self):
        rate, decay = self.learning_rate, self.weight_decay
        require(0 < rate < math.inf, "learning_rate", rate, "must be positive and finite")
        require(0 <= decay < math.inf, "weight_decay", decay, "give a finite number, 0 or more")

    def build(self, momentum: float = 0.9) -> optax.GradientTransformation:
        """Returns the optimizer; `momentum` is the decay rate of its mean of gradients."""
        decay = optax.add_decayed_weights(self.weight_decay)
        return optax.chain(decay, optax.adam(self.learning_rate, b1=momentum))
