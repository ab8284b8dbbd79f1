"""Plans that follow what happens: acceptance, times and batch size of the rounds so far."""

from mtjax.tuning.online.beginning import FirstPlanner, ProfiledDrafter
from mtjax.tuning.online.drift import TimeDrift
from mtjax.tuning.online.estimate import AcceptanceEstimate, Prior
from mtjax.tuning.online.menu import Menu
from mtjax.tuning.online.replanner import Replanner, ReplanState

__all__ = [
  "AcceptanceEstimate",
  "FirstPlanner",
  "Menu",
  "Prior",
  "ProfiledDrafter",
  "ReplanState",
  "Replanner",
  "TimeDrift",
]
