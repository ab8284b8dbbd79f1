"""Decoding: prefill, then rounds of propose, forward, verify, commit in one XLA program."""

from mtjax.decode.adaptive import Adaptive
from mtjax.decode.generation import Generation, generate, prefill, stream
from mtjax.decode.method import Autoregressive, Method
from mtjax.decode.prefix import Prefix
from mtjax.decode.speculative import Speculative

__all__ = [
  "Adaptive",
  "Autoregressive",
  "Generation",
  "Method",
  "Prefix",
  "Speculative",
  "generate",
  "prefill",
  "stream",
]
