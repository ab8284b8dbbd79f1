"""The page docs/pods.md, made from results/pods.json."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mtjax.bench.compile import versions
from mtjax.bench.pods import MESHES, CompiledRound, MemoryRow, PodMesh, RoundCase
from mtjax.bench.pods.process import DRAFT_LAYER, TARGET_LAYER
from mtjax.bench.pods.round import VERIFIER
from mtjax.report import results
from mtjax.report.cells import Cells
from mtjax.report.results import read

COMMAND = "python -m docs.make.pods --results=results/pods.json --page=docs/pods.md"
_PAGE = """# Rounds on meshes that are not here

What one round of speculative decoding needs of each device, for models of 7B and 70B: the draft
model drafts a tree, the target reads it, the verifier decides, and what was accepted is committed
to both caches. Nothing of this ran: it is what shapes and compilers say.

- The target 7B has the shape of Mistral 7B (Llama 2 7B with 8 key heads), 70B that of Llama 3 70B;
  the draft model has the shape of Llama 3.2 1B and the target's vocabulary. All weights and caches
  are bfloat16.
- Trees of 16 entries have 3, 2 and 1 children per node by depth, those of 64 have 3, 4 and 4.
  Siblings are sampled without replacement at temperature 0.8 with top-k 50 and top-p 0.95, and the
  verifier is `{verifier}`.
- Meshes are `data` x `model`. A v5p-16 has 8 chips.

{memory}

Parameters and caches of both models, in GiB of a device; the rest are tokens, counts and the draft
model's keys and values of the last tree. "No" says that these alone are more than the device has.

{compiled}

Compiled with {versions}. One layer of each model was compiled. What a round exchanges is
that of the program, with what comes from a layer counted as often as the model has layers; a loop
whose number of iterations is not known counts once. Temporary memory is that of one layer
each; more layers, which may use the same memory one after the other, were not compiled. It is not
known for H100: there is no compiler for it here, and {cpu} CPU devices stand for it, which gives
the exchanges (in float32 where a CPU has no bfloat16) and the arguments, and nothing else.

{exchanges}

Bytes are those of the result on one device. **No exchange has a dimension of the size of the
vocabulary, of a part of it, or of the cache's slots**: neither logits nor keys nor values are
gathered. The maker fails if one has, and if the arguments of a compiled program differ by more
than 1 % from what the shapes say.

{largest}

Made by

```
{command}
```

in an environment with libtpu (the extra `aot`). Each row takes about a minute of CPU time. With
`--pods=none` the page is made from the file, and nothing is compiled. A test compares the page with
the file, and `make test-aot` compiles one row again.
"""


def key_of(pod: PodMesh, case: RoundCase) -> tuple[PodMesh, RoundCase]:
  """Returns what tells the compiled rounds of a file apart."""
  return pod, case


def compiled_rows(path: str) -> dict[tuple[PodMesh, RoundCase], CompiledRound]:
  """Returns the rounds of a results file that were compiled with the versions that are here."""
  known = read(path)
  if known["settings"]["versions"] != versions("tpu"):
    return {}
  rounds = [CompiledRound.of_row(row) for row in known["rows"]]
  return {key_of(one.pod, one.case): one for one in rounds}


def record(
  path: str, rounds: Sequence[CompiledRound], memory: Sequence[MemoryRow], *, complete: bool
) -> None:
  """Writes the results file."""
  rows = [
    dict(case=dataclasses.asdict(one.case), data=one.data, model=one.model, **one.memory._asdict())
    for one in memory
  ]
  sizes = dict.fromkeys((pod.name, pod.memory) for pod in MESHES)
  settings = dict(
    verifier=VERIFIER,
    versions=versions("tpu"),
    memory=rows,
    meshes=[dict(name=name, memory=size) for name, size in sizes],
  )
  units = dict.fromkeys(("params", "cache", "arguments", "temporary", "padding"), "bytes")
  found = [one.as_row() for one in rounds]
  results.write(
    path, "pods", tables=[], rows=found, units=units, settings=settings, complete=complete
  )


def page(record: Mapping[str, Any]) -> str:
  """Returns the page as Markdown, which depends on the results alone."""
  rounds = [CompiledRound.of_row(row) for row in record["rows"]]
  settings = record["settings"]
  used = ", ".join(f"{name} {number}" for name, number in settings["versions"].items())
  memory, compiled, exchanges, largest = tables(record)
  return _PAGE.format(
    verifier=settings["verifier"],
    memory=memory.markdown(),
    compiled=compiled.markdown(),
    exchanges=exchanges.markdown(),
    largest=largest.markdown(),
    versions=used,
    cpu=max(one.pod.devices for one in rounds),
    command=COMMAND,
  )


def tables(record: Mapping[str, Any]) -> list[Cells]:
  """Returns the tables of arguments, of compiled rounds, of their exchanges and the largest."""
  rounds = [CompiledRound.of_row(row) for row in record["rows"]]
  return [
    _memory(record["settings"]["memory"], record["settings"]["meshes"]),
    _compiled(rounds),
    _exchanges(rounds),
    _largest(rounds),
  ]


def _memory(rows: Sequence[Mapping[str, Any]], meshes: Sequence[Mapping[str, Any]]) -> Cells:
  sizes = {mesh["name"]: mesh["memory"] for mesh in meshes}
  out = []
  for row in rows:
    fits = [_share(row["arguments"], size) for size in sizes.values()]
    figures = [_gibi(row[name]) for name in ("params", "cache", "arguments")]
    case = RoundCase(**row["case"])
    out.append((str(case), f"{row['data']} x {row['model']}", *figures, *fits))
  header = ("", "mesh", "parameters", "caches", "all arguments")
  return Cells("Arguments of a round", (*header, *(f"{name} fits" for name in sizes)), out)


def _compiled(rounds: Sequence[CompiledRound]) -> Cells:
  rows = []
  for one in rounds:
    temporary = "-" if one.temporary is None else _gibi(one.temporary)
    needed = one.arguments + (one.temporary or 0)
    rows.append((*_names(one), _gibi(one.arguments), temporary,
                 _share(needed, one.pod.memory)))  # fmt: skip
  header = ("", "mesh", "arguments", "temporary", "fits")
  return Cells("Compiled rounds, GiB of a device", header, rows)


def _exchanges(rounds: Sequence[CompiledRound]) -> Cells:
  kinds = sorted({row.kind for one in rounds for row in one.collectives})
  rows = []
  for one in rounds:
    cells = []
    for kind in kinds:
      found = [row for row in one.all_collectives if row.kind == kind]
      times, size = sum(row.times for row in found), sum(row.bytes * row.times for row in found)
      cells.append(f"{times:,} ({_mebi(size)})" if times else "none")
    rows.append((*_names(one), *cells))
  return Cells("Exchanges of a round, number (MiB)", ("", "mesh", *kinds), rows)


def _largest(rounds: Sequence[CompiledRound]) -> Cells:
  rows = []
  for one in rounds:
    for scope in (TARGET_LAYER, DRAFT_LAYER, ""):
      row = next(row for row in one.collectives if row.scope == scope)
      source = scope or "elsewhere"
      rows.append((*_names(one), source, row.kind, row.shape, _mebi(row.bytes)))
  header = ("", "mesh", "from", "kind", "result", "MiB")
  return Cells("The largest exchange of a layer of each model, and of the rest", header, rows)


def _names(one: CompiledRound) -> tuple[str, str]:
  return str(one.case), describe(one.pod)


def describe(pod: PodMesh) -> str:
  """Returns the mesh in words: "v5e-8, 1 x 8"."""
  return f"{pod.name}, {pod.data} x {pod.model}"


def _share(needed: int, memory: int) -> str:
  word = "yes" if needed <= memory else "no"
  return f"{word} ({needed / memory:.0%})"


def _gibi(size: int) -> str:
  return f"{size / 2**30:.2f}"


def _mebi(size: int) -> str:
  return f"{size / 2**20:.2f}"
