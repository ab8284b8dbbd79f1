"""The machines of denoising by name."""

from mtjax.diffusion.denoising.machines import BlockBuffer, Pipeline, SubBlocks, TokenMerge
from mtjax.registry.denoising.rows import RuleRow

_MACHINES_TEST = "tests/diffusion/test_block_machines.py"

MACHINES: dict[str, RuleRow] = {
  "pipeline": RuleRow(
    Pipeline,
    "several blocks in flight, each begun early",
    "2508.09192",
    config="configs/decode/d2f.py",
    test=_MACHINES_TEST,
  ),
  "block_buffer": RuleRow(
    BlockBuffer,
    "the same over exact keys of finished blocks, with edits",
    "Diffulex's MultiBD",
    config="configs/decode/multi_bd.py",
    test="tests/diffusion/test_block_buffer.py",
  ),
  "token_merge": RuleRow(
    TokenMerge,
    "blocks whose tokens are all decided anew, and seen as far as they are sure",
    "Diffulex's DMax",
    config="configs/decode/dmax.py",
    test="tests/diffusion/test_soft_inputs.py",
  ),
  "sub_blocks": RuleRow(
    SubBlocks,
    "blocks in parts, over old keys of the other parts, and one token from each commit",
    "2509.26328",
    config="configs/decode/fast_dllm_v2.py",
    test=_MACHINES_TEST,
  ),
}
