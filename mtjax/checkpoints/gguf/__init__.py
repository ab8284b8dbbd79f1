"""GGUF files as models: their settings as fields of config.json, their tensors as floats."""

from mtjax.checkpoints.gguf.settings import read_settings
from mtjax.checkpoints.gguf.tensors import GgufTensors

__all__ = ["GgufTensors", "read_settings"]
