"""Sampling: from logits to the distribution a token is sampled from, and the sampling itself."""

from mtjax.sampling.categorical import best_token, best_tokens, draw_token
from mtjax.sampling.logits import History, Rules, Sampling, draw, process, row_keys

__all__ = [
  "History",
  "Rules",
  "Sampling",
  "best_token",
  "best_tokens",
  "draw",
  "draw_token",
  "process",
  "row_keys",
]
