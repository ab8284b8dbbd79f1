"""Transfer rules that choose positions by rank, with noise on the scores."""

from mtjax.diffusion.transfer.gumbel.dream_counts import DreamCounts
from mtjax.diffusion.transfer.gumbel.maskgit import MaskGit

__all__ = ["DreamCounts", "MaskGit"]
