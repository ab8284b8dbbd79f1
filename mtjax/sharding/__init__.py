"""The mesh, shardings of parameters by their paths, of rows and caches, and kernels on a mesh.

This package is the only one that names mesh axes. They are of Auto type: XLA propagates shardings
(GSPMD), and a spec never changes a result, only where it is computed. Models, decoders and losses
do not know of meshes.
"""

from jax.sharding import PartitionSpec as P

from mtjax.sharding.batch import (
  batch_sharding,
  pad_rows,
  padded_rows,
  row_shardings,
)
from mtjax.sharding.mesh import (
  AXES,
  DATA,
  MODEL,
  SEQUENCE,
  MeshLike,
  describe_mesh,
  make_mesh,
  mesh_of,
  mesh_sizes,
  on_mesh,
  parse_mesh,
)
from mtjax.sharding.rules import (
  RULES,
  STATE_RULES,
  Rules,
  heads_note,
  param_shardings,
  put_known,
  shard_params,
  spec,
  state_shardings,
  undivided,
  undivided_note,
)
from mtjax.sharding.split import (
  CACHE,
  FEW_KEY_HEADS,
  LONG_ROWS,
  Pages,
  Split,
  mesh_here,
  on_parts,
  over_heads,
  page_axes,
  parts_here,
  place,
  sharding_of,
  spec_of,
)

__all__ = [
  "AXES",
  "CACHE",
  "DATA",
  "FEW_KEY_HEADS",
  "LONG_ROWS",
  "MODEL",
  "RULES",
  "SEQUENCE",
  "STATE_RULES",
  "MeshLike",
  "P",
  "Pages",
  "Rules",
  "Split",
  "batch_sharding",
  "describe_mesh",
  "heads_note",
  "make_mesh",
  "mesh_here",
  "mesh_of",
  "mesh_sizes",
  "on_mesh",
  "on_parts",
  "over_heads",
  "pad_rows",
  "padded_rows",
  "page_axes",
  "param_shardings",
  "parse_mesh",
  "parts_here",
  "place",
  "put_known",
  "row_shardings",
  "shard_params",
  "sharding_of",
  "spec",
  "spec_of",
  "state_shardings",
  "undivided",
  "undivided_note",
]
