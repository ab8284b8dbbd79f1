"""The meaning of the counters of a run, which launchers print with --help.

Passes are counted per row: a pass over a batch in which three rows still run counts as three.
"""

from collections.abc import Mapping

# Counters of `mtjax.decode.Generation`. A method without drafts has no counters of drafts.
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

# Counters of `mtjax.anysubset.Filled`.
FILLING: Mapping[str, str] = {
  "targets": "tokens that are missing",
  "filled": "tokens that are decided",
  "forwards": "forward passes; the first one reads the context",
  "tokens_per_forward": "decided tokens per forward pass",
  "seconds": "time of all passes, without compilation",
  "compile_seconds": "time of tracing and compilation, or of reading what was compiled before",
}


# Counters of `mtjax.diffusion.denoising.Denoised`.
DENOISING: Mapping[str, str] = {
  "tokens": "tokens generated, end tokens among them",
  "forwards": "forward passes, those of all blocks; the one that reads a prompt is not counted",
  "tokens_per_forward": "tokens per forward pass",
  "seconds": "time of all passes, without compilation",
  "compile_seconds": "time of tracing and compilation, or of reading what was compiled before",
  "tokens_per_second": "tokens per second, without compilation",
  "causal_forwards": "forward passes of the causal model, of the method apd alone",
  "whole_block_forwards": "of the machine sub_blocks: forward passes over blocks with masks",
  "commit_forwards": "of the machine sub_blocks: forward passes over decided blocks",
}


def legend(counters: Mapping[str, str]) -> str:
  """Returns one line per counter, with the names of `mtjax.report.terminal.counters_table`."""
  lines = (f"  {name.replace('_', ' ')}: {meaning}" for name, meaning in counters.items())
  return "\n".join(["Counters of a run, over all rows:", *lines, ""])
