"""Chat templates are programs of somebody else's: rendered in a process with limits."""

from mtjax.data.templates.renderer import LIMITS, Limits, Renderer, Unrenderable, renderer

__all__ = ["LIMITS", "Limits", "Renderer", "Unrenderable", "renderer"]
