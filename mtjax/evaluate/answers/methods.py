"""Methods of decoding that answer the questions of a task, by the names of a command line."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtyping import PyTree

from mtjax.decode.method import Method
from mtjax.registry.build import make_method
from mtjax.registry.methods import METHODS
from mtjax.text import TextModel
from mtjax.types import Exactness
from mtjax.verify import VERIFIERS

REFERENCE = "ar"  # the method whose text the others are compared with
_SAME_AT_ANY_TEMPERATURE = "sample_match"


@dataclasses.dataclass(frozen=True)
class AnsweringMethod:
  """A method with its parameters, its exactness, and whether its text must be that of `ar`."""

  method: Method
  params: PyTree
  exactness: Exactness
  same_text: bool


def answering(
  configs: Mapping[str, Mapping[str, Any]], model: TextModel, *, temperature: float
) -> dict[str, AnsweringMethod]:
  """Returns methods by name, from configs of configs/decode.

  Greedy text is the same for every method that is lossless or greedy-lossless. Sampled text is the
  same under the verifier sample_match, which takes the tokens that `ar` samples; other lossless
  verifiers keep only the distribution. Raises ValueError as `make_method` does.
  """
  out = {}
  for name, config in configs.items():
    method, params = make_method(config, model)
    verifier = config.get("verifier")
    plain = verifier is None
    exactness = METHODS[config["method"]].exactness if plain else VERIFIERS[verifier].exactness
    same = exactness is not Exactness.APPROXIMATE
    if temperature:
      same = plain or verifier == _SAME_AT_ANY_TEMPERATURE
    out[name] = AnsweringMethod(method, params, exactness, same)
  return out
