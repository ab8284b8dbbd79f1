"""mtjax: several tokens per forward pass, and what each way of doing so keeps."""

from mtjax.cache import KVCache
from mtjax.models import Model, TransformerConfig
from mtjax.types import Exactness, Frontier, Output

__all__ = ["Exactness", "Frontier", "KVCache", "Model", "Output", "TransformerConfig"]
__version__ = "0.1.0"
