"""Chat templates, which are programs of others, rendered in a process with limits."""

from mtjax.data.templates.renderer import LIMITS, Renderer, RenderLimits, Unrenderable, renderer

__all__ = ["LIMITS", "RenderLimits", "Renderer", "Unrenderable", "renderer"]
