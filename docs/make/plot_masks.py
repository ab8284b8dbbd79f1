"""A picture of the blocks that attention skips: python -m docs.make.plot_masks --output=masks.png

Above the masks as their entries stand, below in the order of their stamps, as they are computed.
"""

from absl import flags

from mtjax.bench.attention.kernels import MASKS, AttentionShape, frontier_of
from mtjax.cli import flags as launch
from mtjax.report.mask_pictures import blocks_picture

_MASKS = flags.DEFINE_list("masks", list(MASKS), "Masks to draw.")
_ENTRIES = flags.DEFINE_integer("entries", 96, "Number of entries per mask.", lower_bound=2)
_BLOCK = flags.DEFINE_integer("block", 8, "Number of entries per block.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "Picture (png, pdf, svg) to draw.", required=True)


def run() -> None:
  launch.check_output(_OUTPUT)
  launch.check_picture(_OUTPUT)
  if _ENTRIES.value % _BLOCK.value:
    raise ValueError(f"{_ENTRIES.value} entries are not a multiple of {_BLOCK.value}")
  frontiers = {name: frontier_of(AttentionShape(name, _ENTRIES.value)) for name in _MASKS.value}
  blocks_picture(frontiers, _BLOCK.value).savefig(_OUTPUT.value, dpi=110)
  print(f"wrote {_OUTPUT.value}")


if __name__ == "__main__":
  launch.main(run)
