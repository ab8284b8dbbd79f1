"""Tables of the speculative benchmark and profile, for a terminal or for a page."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtjax.bench.profile import Profile
from mtjax.bench.speculative import Results, SystemResult
from mtjax.bench.targets import SpeedTarget, speed_targets
from mtjax.report.cells import Cells


def speed_tables(
  results: Sequence[SystemResult],
  *references: str,
  targets: Callable[[Results], Sequence[SpeedTarget]] | None = None,
) -> list[Cells]:
  """Returns a table per temperature and reference that ran, then those of `targets`.

  After the table over the first reference comes that of decoding alone, where systems say when
  their first tokens were there.
  targets: for each temperature; None: `speed_targets`, for greedy decoding alone.
  """
  temperatures = dict.fromkeys(result.temperature for result in results)
  every = [Results(results, temperature) for temperature in temperatures]
  tables = [table for one in every for table in _speed_tables(one, references)]
  if targets is None:
    return tables + [targets_table(speed_targets(one)) for one in every if not one.temperature]
  return tables + [targets_table(targets(one), _rule(one)) for one in every]


def _speed_tables(results: Results, references: Sequence[str]) -> list[Cells]:
  tables, alone = [], results.decoding_alone
  for reference in references:
    if reference in results.systems:
      tables.append(speed_table(results, reference))
    if reference == references[0] and reference in alone.systems:
      tables.append(decoding_table(alone, reference))
  return tables


def speed_table(results: Results, reference: str) -> Cells:
  """Returns speed-ups over `reference`, tokens per target forward in brackets; a row per system."""
  title = f"Speed over {reference}, {_rule(results)}, batch 1 (tokens per target forward)"
  table = _speeds(results, reference, title)
  if results.temperature:
    return table
  shares = [_same_text(results, system, reference) for system in results.systems]
  rows = [[*row, share] for row, share in zip(table.rows, shares, strict=True)]
  return Cells(title, [*table.header, "same text"], rows)


def decoding_table(alone: Results, reference: str) -> Cells:
  """Returns the table of `Results.decoding_alone`: that of whole calls, without "same text"."""
  title = (
    f"Decoding alone: speed over {reference} after the first tokens, {_rule(alone)}, batch 1 "
    "(tokens per target forward)"
  )
  return _speeds(alone, reference, title)


def _speeds(results: Results, reference: str, title: str) -> Cells:
  rows = []
  for system in results.systems:
    ran = [result for name in results.sets if (result := results.get(system, name))]
    cells = [_cell(results, system, reference, name) for name in results.sets]
    mean = results.mean_speed_up(system, reference)
    rate = statistics.mean(result.tokens_per_second for result in ran)
    rows.append([system, *cells, "-" if mean is None else f"{mean:.2f}x", f"{rate:,.0f}"])
  return Cells(title, ["system", *results.sets, "mean", "tokens/s"], rows)


def speed_rows(results: Sequence[SystemResult], reference: str) -> list[dict[str, Any]]:
  """Returns the figures of each system on each set, for JSON: what the tables show, and the rounds.

  `speed_up`, `decoding_speed_up` and `same_text` are to `reference`; None where it did not run.
  Those of decoding alone, and `first_seconds` of each round, are None where they are not known.
  """
  rows = []
  for one in results:
    other = Results(results, one.temperature).get(reference, one.prompt_set)
    alone, plain = one.after_first(), None if other is None else other.after_first()
    rows.append(
      dict(
        system=one.system,
        prompt_set=one.prompt_set,
        temperature=one.temperature,
        tokens_per_second=one.tokens_per_second,
        tokens_per_forward=one.tokens_per_forward,
        speed_up=None if other is None else one.speed_up(other),
        same_text=None if other is None else one.same_text(other),
        seconds=one.totals,
        first_seconds=None if alone is None else one.first_totals,
        decoding_tokens_per_second=None if alone is None else alone.tokens_per_second,
        decoding_speed_up=None if alone is None or plain is None else alone.speed_up(plain),
      )
    )
  return rows


def _cell(results: Results, system: str, reference: str, prompt_set: str) -> str:
  result = results.get(system, prompt_set)
  if result is None:
    return "-"
  speed_up = results.speed_up(system, reference, prompt_set)
  shown = "-" if speed_up is None else f"{speed_up:.2f}x"
  return f"{shown} ({result.tokens_per_forward:.2f})"


def _rule(results: Results) -> str:
  return f"temperature {results.temperature:g}" if results.temperature else "greedy"


def _same_text(results: Results, system: str, reference: str) -> str:
  shares = [
    one.same_text(other)
    for name in results.sets
    if (one := results.get(system, name)) and (other := results.get(reference, name))
  ]
  # Rounded down: only text that is the same everywhere is shown as 100 %.
  return f"{int(statistics.mean(shares) * 1000) / 10:.1f}%" if shares else "-"


def targets_table(targets: Sequence[SpeedTarget], rule: str = "greedy") -> Cells:
  rows = [
    (
      f.demand,
      f"{f.minimum:g}x",
      "-" if f.measured is None else f"{f.measured:.2f}x",
      f.of,
      f.verdict,
    )
    for f in targets
  ]
  return Cells(f"Floors, {rule}", ("floor", "at least", "measured", "by", "verdict"), rows)


def autoregressive_table(rows: Sequence[Mapping[str, Any]], reference: str) -> Cells:
  """Tokens per second, ratio to the reference and share of the limit; one row a system.

  `rows` are those of experiments/bench/autoregressive.py. The limit is the rate at which the
  weights alone can be read, at the bandwidth of their size. The last column is the least share of
  tokens before the first that is not the reference's.
  """
  runs = dict.fromkeys((row["batch"], row["threads"]) for row in rows)
  found = {(row["system"], row["batch"], row["threads"]): row for row in rows}

  def cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
      return "-"
    return f"{row['median']:,.0f} ({row['ratio']:.2f}x, {row['bandwidth_share']:.0%})"

  lines = []
  for system in dict.fromkeys(row["system"] for row in rows):
    same = min(row["same_text"] for row in rows if row["system"] == system)
    cells = (cell(found.get((system, *run))) for run in runs)
    # Rounded down: only text that is the same everywhere is shown as 100 %.
    lines.append((system, *cells, f"{int(same * 1000) / 10:.1f}%"))
  header = [f"batch {batch}, {n} thread{'s' * (n > 1)}" for batch, n in runs]
  title = f"Tokens per second (ratio to {reference}, share of the limit of memory)"
  return Cells(title, ("system", *header, "same text"), lines)


def profile_table(profiles: Mapping[str, Profile]) -> Cells:
  """Returns milliseconds per round, per network, and per part outside them; one row per name."""
  parts = list(dict.fromkeys(part for profile in profiles.values() for part in profile.parts))
  rows = []
  for name, p in profiles.items():
    shown = [p.round, p.target, p.draft, p.in_turn, *(p.parts.get(part, 0.0) for part in parts)]
    times = [f"{seconds * 1e3:.3f}" for seconds in shown]
    shares = [f"{share:.1%}" for share in (p.share, p.share_in_turn, p.share_of_parts)]
    rows.append((name, f"{p.vocab:,}", str(p.nodes), *times, *shares))
  header = ["method", "V", "N", "round", "target", "draft model", "both in turn"]
  header += [*parts, "outside", "in turn", "sum of parts"]
  return Cells("Milliseconds per round, and the share outside the two networks", header, rows)
