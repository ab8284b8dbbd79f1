"""Machines: loops of their own over the blocks of a block-causal network."""

from mtjax.diffusion.denoising.machines.block_buffer import BlockBuffer
from mtjax.diffusion.denoising.machines.pipeline import Pipeline
from mtjax.diffusion.denoising.machines.protocol import BlockMachine
from mtjax.diffusion.denoising.machines.sub_blocks import SubBlocks
from mtjax.diffusion.denoising.machines.token_merge import TokenMerge

__all__ = ["BlockBuffer", "BlockMachine", "Pipeline", "SubBlocks", "TokenMerge"]
