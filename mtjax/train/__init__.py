"""Training: one loop, one file per concern."""

from mtjax.train.loop import PREEMPTED_EXIT, run, train

__all__ = ["PREEMPTED_EXIT", "run", "train"]
