"""The optimizer of all networks that are trained."""

import math

import optax

from sparse_ad.errors import require


def learner(fit, momentum: float = 0.9) -> optax.GradientTransformation:
    """Returns Adam; weight decay is added to the gradient before it, as PyTorch's Adam does.

    Reads learning_rate and weight_decay of `fit`, the section of a config.
    Errors: UserError that names the field, its value and the remedy.
    """
    rate, decay = fit.learning_rate, fit.weight_decay
    require(0 < rate < math.inf, "fit.learning_rate", rate, "must be positive and finite")
    require(0 <= decay < math.inf, "fit.weight_decay", decay, "give a finite number, 0 or more")
    return optax.chain(optax.add_decayed_weights(decay), optax.adam(rate, b1=momentum))
