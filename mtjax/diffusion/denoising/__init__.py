"""The denoising loop: blocks of masks become text, pass by pass."""

from mtjax.diffusion.denoising.machines.run import denoise_by_blocks, stream_by_blocks
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.replay import replay
from mtjax.diffusion.denoising.result import Denoised
from mtjax.diffusion.denoising.run import LLADA, denoise, stream
from mtjax.diffusion.denoising.traces import Trace, TraceEvent

__all__ = [
  "LLADA",
  "Denoised",
  "MaskedNetwork",
  "Trace",
  "TraceEvent",
  "denoise",
  "denoise_by_blocks",
  "replay",
  "stream",
  "stream_by_blocks",
]
