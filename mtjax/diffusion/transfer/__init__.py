"""Transfer rules: how many positions of a canvas are decided in a pass."""

from mtjax.diffusion.transfer.ancestral import Ancestral
from mtjax.diffusion.transfer.dilated import Dilated
from mtjax.diffusion.transfer.entropy_bound import EntropyBound
from mtjax.diffusion.transfer.factor import Factor
from mtjax.diffusion.transfer.falling_threshold import FallingThreshold
from mtjax.diffusion.transfer.first_hitting import FirstHitting
from mtjax.diffusion.transfer.gumbel import DreamCounts, MaskGit
from mtjax.diffusion.transfer.hierarchy import Hierarchy
from mtjax.diffusion.transfer.klass import Klass
from mtjax.diffusion.transfer.llada_counts import LladaCounts
from mtjax.diffusion.transfer.one_by_one import OneByOne
from mtjax.diffusion.transfer.threshold import Threshold
from mtjax.diffusion.transfer.wino_draft import WinoDraft

__all__ = [
  "Ancestral",
  "Dilated",
  "DreamCounts",
  "EntropyBound",
  "Factor",
  "FallingThreshold",
  "FirstHitting",
  "Hierarchy",
  "Klass",
  "LladaCounts",
  "MaskGit",
  "OneByOne",
  "Threshold",
  "WinoDraft",
]
