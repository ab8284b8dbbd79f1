"""Parameters and training states on disk."""

from mtjax.checkpoints.pretrained import load, save

__all__ = ["load", "save"]
