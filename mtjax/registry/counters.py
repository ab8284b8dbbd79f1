"""The legend of the counters of a run, which launchers print with --help.

Passes are counted per row: a pass over a batch in which three rows still run counts as three.
"""

from collections.abc import Mapping

# Of `mtjax.decode.Generation`. Those of drafts are there where the method drafts.
DECODING: Mapping[str, str] = {
  "prompt_tokens": "tokens of all prompts",
  "tokens": "tokens emitted, end tokens among them",
  "target_forwards": "forward passes of the target; reading a prompt is one",
  "draft_forwards": "forward passes of a draft model; reading the prompt is not counted",
  "entries": "tokens and drafts that these passes of the target computed, without padding",
  "drafted_at_depth": "drafts that were verified, by how many tokens they stand ahead: 1, 2, ...",
  "accepted_at_depth": "drafts that were emitted, likewise; none behind the end of a text",
  "accepted_at_place": "drafts that were emitted, by their place among siblings: 1st, 2nd, ...",
  "tokens_per_forward": "tokens per forward pass of the target",
  "seconds": "time of prefill and all rounds, without compilation",
  "compile_seconds": "time of tracing and compilation, or of reading what was compiled before",
  "tokens_per_second": "tokens per second, without compilation",
}

# Of `mtjax.anysubset.Filled`.
FILLING: Mapping[str, str] = {
  "targets": "tokens that are missing",
  "filled": "tokens that are decided",
  "forwards": "forward passes; the one that reads the given tokens is the first",
  "tokens_per_forward": "decided tokens per forward pass",
  "seconds": "time of all passes, without compilation",
  "compile_seconds": "time of tracing and compilation, or of reading what was compiled before",
}


def legend(counters: Mapping[str, str]) -> str:
  """Returns one line per counter, as `mtjax.report.terminal.counters_table` names them."""
  lines = (f"  {name.replace('_', ' ')}: {meaning}" for name, meaning in counters.items())
  return "\n".join(["Counters of a run, over all rows:", *lines, ""])
