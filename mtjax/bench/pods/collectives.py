"""What devices exchange in a compiled program: kinds, numbers and bytes, from its text."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"([a-z]+\w*)\[([\d,]*)\]")
_LOOP = re.compile(r"body=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(
  r"(?:to_apply|calls|condition|body)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}"
)
_NAME = re.compile(r'op_name="([^"]*)"')
_BITS = re.compile(r"\d+")


class Collective(NamedTuple):
  """One kind of exchange of one size."""

  kind: str
  shape: str  # of the result, as "bf16[8,16,4096]"; several are joined by +
  bytes: int  # of the result on one device
  scope: str  # where it comes from, by `scopes`; "": from elsewhere
  times: int  # in a run of the program, where loops say how often they run; others count once


def collectives(text: str, scopes: Mapping[str, str] = {}) -> tuple[Collective, ...]:
  """Returns the exchanges of a compiled program (`Compiled.as_text`), the largest first.

  A start and its end count once. A loop whose number of turns is in the text counts so many times,
  any other loop once. `scopes`: by name, patterns of the operations' names that are in it.
  """
  found: dict[str, list[tuple[str, str, int, str]]] = defaultdict(list)
  called: dict[str, Counter] = defaultdict(Counter)
  entry = computation = ""
  for line in text.splitlines():
    if header := _HEADER.match(line):
      computation = header[2]
      entry = computation if header[1] else entry
      continue
    if exchange := _INSTRUCTION.search(line):
      shapes = _shapes(exchange[1])
      # The start of an exchange returns its operands, too, unless it is an all-reduce.
      if exchange[3] and exchange[2] != "all-reduce":
        shapes = shapes[len(shapes) // 2 :] if len(shapes) == 2 else shapes[1:2]
      size = sum(number for _, number in shapes)
      name = _NAME.search(line)
      scope = next((s for s, it in scopes.items() if name and re.search(it, name[1])), "")
      found[computation].append((exchange[2], "+".join(x for x, _ in shapes), size, scope))
    trips = _TRIPS.search(line)
    loop = _LOOP.search(line)
    for one, several in _CALLED.findall(line):
      for name in [one] if one else re.findall(r"[\w.\-]+", several):
        inside = trips and loop and name == loop[1]
        called[computation][name] += int(trips[1]) if inside else 1
  out: Counter = Counter()
  _add(entry, 1, found, called, out)
  rows = [Collective(*exchange, times) for exchange, times in out.items()]
  return tuple(sorted(rows, key=lambda one: (-one.bytes, one)))


def _add(computation, times, found, called, out) -> None:
  for exchange in found[computation]:
    out[exchange] += times
  for name, number in called[computation].items():
    _add(name, times * number, found, called, out)


def _shapes(text: str) -> list[tuple[str, int]]:
  out = []
  for dtype, sizes in _SHAPE.findall(text):
    bits = _BITS.search(dtype)
    width = 8 if bits is None else max(int(bits[0]), 8)  # pred is a byte
    elements = math.prod(int(size) for size in sizes.split(",") if size)
    out.append((f"{dtype}[{sizes}]", elements * width // 8))
  return out


def of_size(rows: Sequence[Collective], sizes: Collection[int]) -> tuple[Collective, ...]:
  """Returns the exchanges of arrays of which a dimension has one of `sizes`."""
  return tuple(row for row in rows if any({*dims} & {*sizes} for dims in _dimensions(row.shape)))


def of_vocabulary(rows: Sequence[Collective], vocab: int, parts: int) -> tuple[Collective, ...]:
  """Returns the exchanges of arrays as wide as the vocabulary, or as some of its equal parts.

  The vocabulary may be padded to whole blocks (`mtjax.sampling.categorical`), or be blocks by
  tokens.
  """
  several = {vocab * n // parts for n in range(1, parts + 1)}
  padded = range(vocab, vocab + math.isqrt(2 * vocab) + 1)

  def wide(dims: Sequence[int]) -> bool:
    return bool({*dims} & several) or any(x in padded for x in (*dims, math.prod(dims[-2:])))

  return tuple(row for row in rows if any(map(wide, _dimensions(row.shape))))


def _dimensions(shapes: str) -> list[list[int]]:
  """Returns the dimensions of each of some shapes."""
  return [[int(size) for size in text.split(",") if size] for _, text in _SHAPE.findall(shapes)]
