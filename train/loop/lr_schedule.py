"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

import math

from train.config import OptimConfig


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Linear warmup, then a cosine down to `final_share` of the peak at the last step.

    Args:
        step: from 0; the rate of the update that this step makes.
        steps: of the whole run.
    """
    warmup = round(config.warmup_share * steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    share = config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * share
