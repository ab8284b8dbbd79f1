"""Sampling: from logits to the distribution that tokens are sampled from, and the sampling."""

from mtjax.sampling.categorical import argmax, sample_categorical, top_k
from mtjax.sampling.logits import History, Rules, Sampling, process, row_keys, sample

__all__ = [
  "History",
  "Rules",
  "Sampling",
  "argmax",
  "top_k",
  "sample",
  "sample_categorical",
  "process",
  "row_keys",
]
