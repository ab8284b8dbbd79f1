"""Revision rules: which decided positions of a canvas are masked again or edited."""

from mtjax.diffusion.revise.edit import EditTokens
from mtjax.diffusion.revise.keep import KeepDecided
from mtjax.diffusion.revise.levenshtein import Levenshtein
from mtjax.diffusion.revise.remdm import RemdmCap, RemdmConf, RemdmLoop, RemdmRescale
from mtjax.diffusion.revise.wino import Wino

__all__ = [
  "EditTokens",
  "KeepDecided",
  "Levenshtein",
  "RemdmCap",
  "RemdmConf",
  "RemdmLoop",
  "RemdmRescale",
  "Wino",
]
