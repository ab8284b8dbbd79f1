"""The document of kernels as compiled for chips."""

from collections.abc import Callable, Sequence

from mtjax.bench.compile import CHIPS, MESHES, Compiled, versions
from mtjax.report.cells import Cells

COMMAND = "python -m docs.make.kernel_table --output=docs/kernel_table.md"
_INTRODUCTION = """# Kernels as compiled

Made by `{command}` in the environment of `make test-aot`,
with {versions}. Nothing of this ran on a chip: it is what compilers say.
`make test-aot` compiles it all again and compares.

Batch 8, 32 query heads, 8 key heads (of 256 dimensions: 16 and 4), bfloat16, caches of 8,192 slots
a row; what differs is named. A copy of keys or of values would be half of the cache, as temporary
memory."""


def document(results: Sequence[Compiled]) -> str:
  """Returns Markdown: tables of shapes by chips, the same for every compilation."""
  used: dict[str, str | None] = {}
  for platform in dict.fromkeys((CHIPS | MESHES)[one.chip].platform for one in results):
    used |= versions(platform)
  text = _INTRODUCTION.format(
    command=COMMAND, versions=", ".join(f"{name} {number}" for name, number in used.items())
  )
  parts = [text, *(table.markdown() for table in tables(results)), _notes(results)]
  return "\n\n".join(part for part in parts if part) + "\n"


def tables(results: Sequence[Compiled]) -> list[Cells]:
  tpu = [one for one in results if one.chip in CHIPS and CHIPS[one.chip].platform == "tpu"]
  gpu = [one for one in results if one.chip in CHIPS and CHIPS[one.chip].platform == "gpu"]
  parts = []
  if tpu:
    parts = [
      _by_chip("VLIW bundles of a step over its keys, for each of them", tpu, _bundles),
      _by_chip("VMEM of the kernel, MiB, and in it spilled registers", tpu, _memory),
      _by_chip("Temporary memory, MiB (cache)", tpu, _temporary),
    ]
  if gpu:
    parts.append(_of_gpu(gpu))
  if meshes := [one for one in results if one.chip in MESHES]:
    parts.append(_of_meshes(meshes))
  return parts


def _by_chip(title: str, results, cell: Callable[[Compiled], str]) -> Cells:
  chips = list(dict.fromkeys(one.chip for one in results))
  rows = []
  for shape in dict.fromkeys(one.job.shape for one in results):
    by = {one.chip: one for one in results if one.job.shape == shape}
    rows.append((str(shape), *(_cell(by.get(chip), cell) for chip in chips)))
  return Cells(title, ("", *chips), rows)


def _cell(one: Compiled | None, cell: Callable[[Compiled], str]) -> str:
  if one is None:
    return "-"
  if one.refused is not None:
    return "refused"
  return "fails" if one.failed is not None else cell(one)


def _bundles(one: Compiled) -> str:
  if one.figures is None or one.figures.bundles is None:
    return "-"
  return f"{one.figures.bundles / one.job.shape.keys_of_step:.2f}"


def _memory(one: Compiled) -> str:
  if one.figures is None:
    return "-"
  return f"{_mebi(one.figures.memory)}, {_mebi(one.figures.spilled)}"


def _temporary(one: Compiled) -> str:
  cache = one.job.shape.cache_bytes
  return _mebi(one.temporary) + (f" ({cache / 2**20:,.0f})" if cache else "")


def _of_gpu(results) -> Cells:
  def cells(one: Compiled):
    figures = one.figures
    if figures is None:
      return "-", "-", "-", _temporary(one)
    return (
      str(figures.registers), f"{figures.spilled:,}", f"{figures.memory:,}", _temporary(one)
    )  # fmt: skip

  header = ("registers", "spilled, bytes", "shared memory, bytes", "temporary, MiB (cache)")
  rows = []
  for one in results:
    row = [_cell(one, lambda one, n=n: cells(one)[n]) for n in range(len(header))]
    rows.append((str(one.job.shape), *row))
  return Cells(f"CUDA, {results[0].chip}", ("", *header), rows)


def _of_meshes(results) -> Cells:
  rows = []
  for one in results:
    kept = [_mebi(one.arguments), _mebi(one.temporary), ", ".join(one.collectives) or "nothing"]
    rows.append((one.chip, *(_cell(one, lambda one, text=text: text) for text in kept)))
  header = ("", "arguments of a chip, MiB", "temporary, MiB", "exchanged")
  title = f"Attention and its projection, rows x heads on 2 x 4 chips: {results[0].job.shape}"
  return Cells(title, header, rows)


def _notes(results) -> str:
  """Returns the reasons why shapes were not compiled."""
  refused = {f"{one.job.shape}: {one.refused}" for one in results if one.refused}
  failed = {
    f"{one.job.shape} on {one.chip}: {one.failed.splitlines()[0]}" for one in results if one.failed
  }
  return "\n".join(f"- {line}" for line in [*sorted(refused), *sorted(failed)])


def _mebi(size: int) -> str:
  return f"{size / 2**20:.2f}"
