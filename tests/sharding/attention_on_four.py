"""Run by test_attention.py in a process with four CPU devices; prints {name: max abs difference}.

Or, where the name says so, a count, or whether something was seen.
"""

import json
import re
import sys
from unittest import mock

import jax

jax.config.update("jax_num_cpu_devices", 4)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import mtjax.models.attention  # noqa: E402
from kernels_pallas.frontier_attention import dispatch as choice  # noqa: E402
from kernels_pallas.frontier_attention import frontier_attention  # noqa: E402
from mtjax import frontier, sharding  # noqa: E402
from mtjax.models import Model, TransformerConfig, uniform_layers  # noqa: E402
from mtjax.models.attention import roles_of, sharded_attention  # noqa: E402
from mtjax.sharding import FEW_KEY_HEADS, LONG_ROWS, Pages, Split  # noqa: E402
from tests.kernels import oracle  # noqa: E402
from tests.kernels.cases import Case, inputs  # noqa: E402

ROWS = (0, 8, 21, 40)
COLLECTIVES = re.compile(r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute)[-a-z]*\(")
OWN = Split(pages=Pages.OWN)


def case(mask="tree", **fields) -> Case:
  return Case(mask, **dict(entries=6, lengths=ROWS, heads=8, kv_heads=4) | fields)


# Every kind of mask, cache and mesh, but not every combination: compilation takes the time.
HEADS = {
  "contiguous, 2 x 2": (case("own"), Split(), (2, 2)),
  "pages, 2 x 2": (case(page=8), Split(), (2, 2)),
  "int8 in pages of its rows, 2 x 2": (case(page=8, cache_dtype="int8"), OWN, (2, 2)),
  "int8, 1 x 4": (case(cache_dtype="int8"), Split(), (1, 4)),
  "two key heads, pages in a window, 1 x 4": (case(kv_heads=2, page=8, window=6), Split(), (1, 4)),
  "one key head, no cache, 1 x 4": (case("content", kv_heads=1, lengths=None), Split(), (1, 4)),
  "window, 4 x 1": (case("hidden", window=6), Split(), (4, 1)),
  "pages of its rows in a window, 4 x 1": (case(page=8, window=6, soft_cap=1.5), OWN, (4, 1)),
}
# Lengths at the edges of four shards of ten slots.
EDGES = (0, 1, 9, 10, 11, 20, 29, 30, 31, 39, 40)
SLOTS = {
  "slots": (case("own", lengths=EDGES), LONG_ROWS, (4, 1)),
  "slots and heads": (case("nobody", lengths=EDGES), LONG_ROWS, (2, 2)),
  "slots and rows": (case("hidden", window=6, kv_heads=1), FEW_KEY_HEADS, (2, 2)),
  "slots, int8 in a window": (case(window=6, cache_dtype="int8"), LONG_ROWS, (4, 1)),
  "slots of shared pages": (
    case(page=8, capacity=64, lengths=(0, 15, 17, 64)), LONG_ROWS, (4, 1),
  ),
  "slots of pages, rows": (
    case(page=8, capacity=64, lengths=(0, 31, 33, 64), window=9, cache_dtype="int8"),
    FEW_KEY_HEADS._replace(pages=Pages.OWN), (2, 2),
  ),
}  # fmt: skip


def of(case: Case, mesh, split: Split) -> dict:
  given = inputs(case)
  shards = mesh.shape.get(split.rows, 1), mesh.shape.get(split.slots, 1)
  return in_own_pages(given, *shards) if split.pages is Pages.OWN else given


def in_own_pages(given, rows: int, slots: int) -> dict:
  """Returns the same pages, each on the shard of its row and slots, in arbitrary order."""
  table = np.asarray(given["page_table"])
  batch, columns = table.shape
  used = np.arange(columns) * given["cache_k"].shape[2] < np.asarray(given["lengths"])[:, None]
  most = batch // rows * (columns // slots) + 1
  source = np.full((rows * slots, most), -1)
  new = table.copy()
  for b, m in zip(*np.nonzero(used), strict=True):
    part = b // (batch // rows) * slots + m // (columns // slots)
    place = np.flatnonzero(source[part] < 0)[-1]
    source[part, place] = table[b, m]
    new[b, m] = part * most + place

  def move(x):
    empty = np.where(np.isnan(np.asarray(x, np.float32)), 0, x).astype(np.float32)[:1] * 0 + 77
    old = np.concatenate([np.asarray(x, np.float32), empty])
    return jnp.asarray(old[source.ravel()], x.dtype)

  pages = {name: jax.tree.map(move, given[name]) for name in ("cache_k", "cache_v", "kv_scales")}
  return given | pages | dict(page_table=jnp.asarray(new))


def program(given, mesh, split, **how):
  """Returns the program, compiled for arrays in their final places, and its result."""
  roles = roles_of(given, mesh, split)
  places = jax.tree.map(lambda r: jax.NamedSharding(mesh, sharding.spec_of(r, split)), roles)
  arrays = jax.device_put({name: given[name] for name in roles}, places)
  rest = {name: x for name, x in given.items() if name not in roles}

  def attend(arrays):
    return sharded_attention(**arrays, **rest, mesh=mesh, split=split, **how)

  compiled = jax.jit(attend).lower(arrays).compile()
  return compiled, compiled(arrays)


def difference(found, expected) -> float:
  """Returns the largest difference; NaN and unequal infinities are infinitely far apart."""
  worst = 0.0
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    same = one == other
    apart = np.abs(np.where(same, 0, one) - np.where(same, 0, other))
    worst = max(worst, float(np.max(np.where(np.isnan(apart), np.inf, apart), initial=0.0)))
  return worst


def over_heads() -> dict[str, float]:
  """Checks that devices exchange nothing."""
  out = {}
  for name, (case, split, shape) in HEADS.items():
    mesh = sharding.make_mesh(*shape)
    given = of(case, mesh, split)
    sizes = (4, 16) if case.lengths is None else None  # every device has its own list of blocks
    compiled, found = program(given, mesh, split, implementation="xla", block_sizes=sizes)
    out[name] = difference(found, oracle.attention(**given))
    out[f"collectives: {name}"] = float(len(COLLECTIVES.findall(compiled.as_text())))
  spread = jax.device_put(jnp.zeros((4, 8)), jax.NamedSharding(mesh, sharding.P(sharding.DATA)))
  whole = jax.NamedSharding(mesh, sharding.P())
  gather = jax.jit(lambda x: x, out_shardings=whole).lower(spread).compile().as_text()
  assert [kind for _, kind in COLLECTIVES.findall(gather)] == ["all-gather"], gather
  return out


def over_slots() -> dict[str, float]:
  """Checks that devices exchange only outputs, and only by sums and a maximum."""
  out = {}
  for name, (case, split, shape) in SLOTS.items():
    mesh = sharding.make_mesh(*shape)
    given = of(case, mesh, split)
    compiled, found = program(given, mesh, split, implementation="xla")
    out[name] = difference(found, oracle.attention(**given))
    moved = COLLECTIVES.findall(compiled.as_text())
    assert moved, f"{name}: the pattern finds no all-reduce"
    entry = found[1].addressable_shards[0].data.size
    limit = 4 * entry * (case.width + 2)
    out[f"bytes reduced over the limit: {name}"] = max(0.0, sum(map(size_of, moved)) - limit)
    out[f"not reductions: {name}"] = float(sum(kind != "all-reduce" for _, kind in moved))
  return out


def size_of(op) -> int:
  """Returns the bytes of a float32 result in HLO: f32[2,6,4]{2,1,0}, or a tuple of such."""
  shapes = re.findall(r"f32\[([\d,]*)\]", op[0])
  assert shapes, op
  return 4 * sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)


def mistakes() -> dict[str, float]:
  """Returns the difference that each mistake makes: infinity or a large one."""
  case, split, shape = SLOTS["slots"]
  mesh = sharding.make_mesh(*shape)
  given = of(case, mesh, split)
  expected = oracle.attention(**given)
  out = {}

  def seen(name, wrong, of=mtjax.models.attention):
    with mock.patch.object(of, wrong.__name__, wrong):
      _, found = program(given, mesh, split, implementation="xla")
    out[f"seen: {name}"] = difference(found, expected)

  def merged_over(out, lse, axis):
    return jax.lax.pmean(out, axis), jax.lax.pmax(lse, axis)

  seen("parts merged by their mean", merged_over)
  right = mtjax.models.attention._own_slots

  def _own_slots(arrays, axis):
    return right(arrays, axis) | dict(hi=arrays["hi"])

  seen("fresh entries seen by every shard", _own_slots)
  case, split, shape = HEADS["pages of its rows in a window, 4 x 1"]
  mesh = sharding.make_mesh(*shape)
  given = of(case, mesh, split)
  given["page_table"] = given["page_table"].at[1, 0].set(given["page_table"][2, 0])
  _, found = program(given, mesh, split)
  clean = np.isfinite(np.asarray(found[0])).all(axis=(1, 2, 3)).tolist()
  out["rows that name another's page, and only they, are NaN"] = float(
    clean != [True, False, True, True]
  )
  return out


def gradients() -> dict[str, float]:
  """Checks gradients of queries and keys, where keys are split, shared or summed over."""
  kinds = {
    "rows and heads": (case("content", lengths=None), Split(), (2, 2)),
    "two key heads": (case("content", lengths=None, kv_heads=2), Split(), (1, 4)),
    "slots and heads": (case("own"), LONG_ROWS, (2, 2)),
  }
  out = {}
  for name, (kind, split, shape) in kinds.items():
    mesh = sharding.make_mesh(*shape)
    given = {
      n: jnp.nan_to_num(x) if isinstance(x, jax.Array) and x.dtype == jnp.float32 else x
      for n, x in inputs(kind).items()
    }
    names = [n for n in ("q", "k", "v", "cache_k", "cache_v") if given[n] is not None]

    def gradient(attend, given=given, names=names, **how):
      def loss(arrays):
        found, lse = attend(**given | arrays, **how)
        weights = jax.random.normal(jax.random.key(1), found.shape)
        lse = jnp.where(jnp.isneginf(lse), 0, lse)
        return jnp.vdot(weights, found) + jnp.vdot(weights[..., 0], lse)

      return jax.jit(jax.grad(loss))({name: given[name] for name in names})

    expected = gradient(frontier_attention, implementation="reference")
    assert min(float(jnp.max(jnp.abs(x))) for x in expected.values()) > 1e-3
    found = gradient(sharded_attention, mesh=mesh, split=split, implementation="xla")
    out[f"gradient over {name}"] = difference(found, expected)
  return out


def kernel() -> dict[str, float]:
  """The TPU kernel on each device's part, interpreted as HLO: under shard_map the TPU's own
  interpreter stands still in JAX 0.10.
  """
  from kernels_pallas.frontier_attention.tpu import kernel as tpu

  out = {}
  for name, split in (("rows and heads", Split()), ("slots and heads", LONG_ROWS)):
    mesh = sharding.make_mesh(2, 2)
    given = inputs(case("own", kv_heads=2))
    with mock.patch.object(tpu.pltpu, "InterpretParams", lambda: True):
      _, found = program(given, mesh, split, implementation="tpu_interpret", block_sizes=(8, 10))
    out[f"kernel over {name}"] = difference(found, oracle.attention(**given))
  return out


def default() -> dict[str, float]:
  """Checks a model under a mesh: the wrapper is used only where the platform has a kernel."""
  config = TransformerConfig(
    vocab_size=32, dim=16, heads=4, kv_heads=2, head_dim=8, mlp_dim=24, layers=uniform_layers(1)
  )
  model, mesh = Model(config), sharding.make_mesh(2, 2)
  params = model.init(jax.random.key(0))
  out = {}
  for rows in (4, 1):
    tokens = jax.random.randint(jax.random.key(1), (rows, 6), 0, 32)

    def forward(params, tokens):
      return model.forward(params, frontier.causal(tokens)).logits

    expected = jax.jit(forward)(params, tokens)
    placed = sharding.shard_params(params, mesh)
    with jax.set_mesh(mesh):
      plain = str(jax.make_jaxpr(forward)(placed, tokens))
      # The kernel refuses heads of 8: each device computes its blocks in XLA.
      with mock.patch.object(choice, "platform_here", lambda: "tpu"):
        wrapped = str(jax.make_jaxpr(lambda *given: forward(*given))(placed, tokens))
        found = jax.jit(lambda *given: forward(*given))(placed, tokens)
    out[f"default of {rows} rows"] = difference(found, expected)
    out[f"not wrapped: {rows} rows where there is a kernel"] = float("shard_map" not in wrapped)
    out[f"wrapped: {rows} rows where there is none"] = float("shard_map" in plain)
  return out


def main() -> None:
  assert len(jax.devices()) == 4
  out = over_heads() | over_slots() | mistakes() | gradients() | kernel() | default()
  json.dump(out, sys.stdout)


if __name__ == "__main__":
  main()
