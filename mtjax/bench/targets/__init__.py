"""Targets for speculative decoding on the bundled models, beside the measured figures."""

import dataclasses
from collections.abc import Callable, Sequence

from mtjax.bench.speculative import Results

PLAIN = "mtjax:ar"
ASSISTED, LOOKUP = "transformers assisted", "transformers prompt lookup"


@dataclasses.dataclass(frozen=True)
class SpeedTarget:
  """One target and the measured figure."""

  demand: str
  minimum: float
  measured: float | None  # None: not measured
  of: str = ""  # the system, and the set where it is lowest

  @property
  def verdict(self) -> str:
    if self.measured is None:
      return "not measured"
    return "pass" if self.measured >= self.minimum else "fail"


# Methods by the target that applies to them, whatever their settings are.
RETRIEVAL = ("lookup", "trie", "suffix")
DRAFT_MODEL = ("draft", "draft_tree", "best_first", "grown_tree", "sorted")
AUTO = ("auto",)


def ours(systems: Sequence[str], methods: Sequence[str]) -> list[str]:
  """Returns the systems that are one of our methods, with any settings."""
  parts = {system: system.split(":") for system in systems}
  return [name for name, part in parts.items() if part[0] == "mtjax" and part[1] in methods]


def chosen(
  demand: str,
  minimum: float,
  systems: Sequence[str],
  figure: Callable[[str], float | None],
  choose: Callable = max,
) -> SpeedTarget:
  """Returns a target that is judged by one of the systems: the best, or with `min` the worst."""
  measured = {system: value for system in systems if (value := figure(system)) is not None}
  if not measured:
    return SpeedTarget(demand, minimum, None)
  system = choose(measured, key=measured.__getitem__)
  return SpeedTarget(demand, minimum, measured[system], system)


def speed_targets(results: Results) -> list[SpeedTarget]:
  """Returns all targets for one temperature, measured by the best system of each kind.

  The automatic choice is judged by its worst system and set. A ratio to a peer is to its fastest
  variant; means are over the sets that ran.
  """
  systems = results.systems
  lookups, drafts = ours(systems, RETRIEVAL), ours(systems, DRAFT_MODEL)
  autos = ours(systems, AUTO)

  def on(prompt_set):
    return lambda system: results.speed_up(system, PLAIN, prompt_set)

  def on_all(system):
    return results.mean_speed_up(system, PLAIN)

  def lowest(system):
    measured = results.speed_ups(system, PLAIN)
    return min(measured.values()) if len(measured) == len(results.sets) else None

  def against(peer):
    peers = [system for system in systems if system.startswith(peer)]

    def ratio(system):
      measured = [value for other in peers if (value := results.mean_speed_up(system, other))]
      return min(measured) if measured and len(measured) == len(peers) else None

    return ratio

  return [
    chosen("lookup or trie / plain, toolcall", 1.8, lookups, on("toolcall")),
    chosen("lookup or trie / plain, pycode", 1.3, lookups, on("pycode")),
    chosen("draft model / plain, mean of sets", 1.2, drafts, on_all),
    chosen("auto / plain, every set", 0.97, autos, lowest, min),
    chosen("lookup or trie / transformers' lookup, mean", 1.5, lookups, against(LOOKUP)),
    chosen("draft model / transformers' assisted, mean", 3.0, drafts, against(ASSISTED)),
  ]
