"""mtjax: several tokens per forward pass, and what each method keeps of its target model.

The names below are the public ones. Each is imported when it is first used, so that `import mtjax`
itself takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from mtjax.anysubset.infill import Infilling, infill
  from mtjax.cache import KVCache
  from mtjax.decode import Adaptive, Autoregressive, Generation, Speculative
  from mtjax.draft import BestFirst, ModelChain, ModelTree, PromptLookup, Trie
  from mtjax.evaluate.scoring import Score, score
  from mtjax.models import Model, TransformerConfig
  from mtjax.pretrained import load
  from mtjax.registry.by_name import method
  from mtjax.registry.denoising.methods import denoiser
  from mtjax.sampling.logits import Sampling
  from mtjax.text import Completion, TextModel
  from mtjax.types import Exactness, Frontier
  from mtjax.verify import VERIFIERS

__all__ = [
  "VERIFIERS",
  "Adaptive",
  "Autoregressive",
  "BestFirst",
  "Completion",
  "Exactness",
  "Frontier",
  "Generation",
  "Infilling",
  "KVCache",
  "Model",
  "ModelChain",
  "ModelTree",
  "PromptLookup",
  "Sampling",
  "Score",
  "Speculative",
  "TextModel",
  "TransformerConfig",
  "Trie",
  "denoiser",
  "infill",
  "load",
  "method",
  "score",
]
__version__ = "0.1.0"

# module -> the names of __all__ that it holds.
_HOMES = {
  "mtjax.anysubset.infill": ("Infilling", "infill"),
  "mtjax.cache": ("KVCache",),
  "mtjax.decode": ("Adaptive", "Autoregressive", "Generation", "Speculative"),
  "mtjax.draft": ("BestFirst", "ModelChain", "ModelTree", "PromptLookup", "Trie"),
  "mtjax.evaluate.scoring": ("Score", "score"),
  "mtjax.models": ("Model", "TransformerConfig"),
  "mtjax.pretrained": ("load",),
  "mtjax.registry.by_name": ("method",),
  "mtjax.registry.denoising.methods": ("denoiser",),
  "mtjax.sampling.logits": ("Sampling",),
  "mtjax.text": ("Completion", "TextModel"),
  "mtjax.types": ("Exactness", "Frontier"),
  "mtjax.verify": ("VERIFIERS",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
  if name not in _HOME:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  value = getattr(import_module(_HOME[name]), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
