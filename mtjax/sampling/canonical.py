"""One way to write sampling settings, for what is stored by them."""

from typing import Any

import numpy as np

from mtjax.arguments import integer
from mtjax.sampling.logits import Sampling

_OFF = dict(top_p=1.0, min_p=0.0, repetition_penalty=1.0, presence_penalty=0.0)
_FILTERS = ("top_k", "top_p", "min_p")


def canonical_sampling(sampling: Sampling | None) -> Sampling | None:
  """Returns equal settings for all settings of one distribution; None for greedy ones alone.

  Numbers are Python's: the shortest ones that are the same in float32, in which tokens are sampled.
  Values per row are one number if they are equal, else a tuple. What changes nothing is None, and
  so are the filters of rows that are all greedy. Raises ValueError for a top_k that is no whole
  number.
  """
  if sampling is None:
    return None
  changed: dict[str, Any] = {name: _python(sampling, name, off) for name, off in _OFF.items()}
  changed["top_k"] = _python(sampling, "top_k", 0)
  changed["temperature"] = _python(sampling, "temperature", 0.0) or 0.0
  if changed["temperature"] == 0.0:
    changed |= dict.fromkeys(_FILTERS)
  bias = sorted((sampling.logit_bias or {}).items())
  known = {integer(token, "a token of logit_bias"): _float(value) for token, value in bias}
  changed["logit_bias"] = {token: value for token, value in known.items() if value} or None
  canonical = Sampling(**changed)
  return None if canonical == Sampling() else canonical


def sampling_name(sampling: Sampling | None) -> str:
  """Returns the name of what tokens are sampled by, as profiles have it: "greedy", or settings."""
  canonical = canonical_sampling(sampling)
  return "greedy" if canonical is None else repr(canonical)


def _python(sampling: Sampling, name: str, off: float) -> Any:
  """Returns a setting as a Python number, or a tuple of them, one per row; None where it is off."""
  setting = getattr(sampling, name)
  if setting is None:
    return None
  values = list(setting) if np.ndim(setting) else [setting]
  numbers = [integer(value, name) if name == "top_k" else _float(value) for value in values]
  if all(number == off for number in numbers):
    return None
  return numbers[0] if len(set(numbers)) == 1 else tuple(numbers)


def _float(value: Any) -> float:
  return float(str(np.float32(value)))
