"""Parameters and training states on disk."""

from mtjax.checkpoints.pretrained import load, read_config, save

__all__ = ["load", "read_config", "save"]
