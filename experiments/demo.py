"""A demonstration of one to two minutes on this machine: python -m experiments.demo

Continues three prompts (prose, code, arithmetic) with the bundled model and several methods side by
side, and shows which tokens were drafted and what each method costs. The rate of plain decoding
stands beside the one that the memory bandwidth would allow.
"""

import jax
from absl import flags
from rich.console import Console
from rich.markup import escape

from configs.decode import ar
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.native.bandwidth import measure_bandwidth
from mtjax.pretrained import DEMO_PROMPTS, for_decoding, load_pretrained
from mtjax.registry.build import run_settings
from mtjax.report.comparison import DRAFTED, colored, compare, contenders, table

_MAX_TOKENS = flags.DEFINE_integer(
  "max_tokens", 96, "Number of tokens to generate per prompt.", lower_bound=1
)
_METHODS = flags.DEFINE_list(
  "methods",
  ["ar", "lookup", "draft", "draft_tree", "auto"],
  "Methods to compare; speed and text are compared with those of the first one.",
)


def run() -> None:
  console = Console(highlight=False)
  config = ar.get_config()
  # float32 makes the model too large for the machine's caches, and other systems read it too.
  config.update(max_tokens=_MAX_TOKENS.value, weights="float32")
  text = for_decoding(load_pretrained("target"), config.weights)
  methods = contenders(_METHODS.value, config, text)
  results = []
  for result in compare(text, DEMO_PROMPTS, methods, progress=progress, **run_settings(config)):
    results.append(result)
  shown = max(results, key=lambda result: result.tokens_per_forward)
  for prompt, run in zip(DEMO_PROMPTS, shown.runs, strict=True):
    console.print(f"[bold]{escape(prompt)}[/]", end="")
    console.print(colored(text, run.tokens[0], run.drafted[0]), end="\n\n")
  console.print(f"[{DRAFTED}]proposed by {shown.name}[/], checked by the target")
  console.print(table(results))
  size = bytes_per_token(text.params)
  limit = measure_bandwidth(size) * 1e9 / size
  rate = 1e3 / results[0].ms_per_token
  console.print(
    f"{results[0].name}: {rate:,.0f} tokens/s, {rate / limit:.0%} of the {limit:,.0f} at which "
    f"{size / 1e6:.0f} MB of weights come from this memory"
  )


def bytes_per_token(params) -> int:
  """Returns the bytes of weights that one token reads: all but the embedding, except one row."""
  inner = {name: value for name, value in params.items() if name != "embedding"}
  read = params if "head" not in params else inner
  return sum(leaf.nbytes for leaf in jax.tree.leaves(read))


if __name__ == "__main__":
  launch.main(run)
