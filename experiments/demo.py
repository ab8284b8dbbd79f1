"""A demonstration of about two minutes on this machine: python -m experiments.demo

SmolLM2-135M-Instruct answers a question, and then does three jobs with several methods side by
side: the text shows who proposed each token, a table what each method costs. Without its package
(the extra smollm2) a bundled model stands in. The rate of plain decoding stands beside the one that
the memory bandwidth would allow.
"""

import time

from absl import flags
from rich.console import Console
from rich.markup import escape

from configs.decode import ar
from mtjax.bench.passes.verification import bytes_read
from mtjax.cli import flags as launch
from mtjax.cli.prompts import formatted
from mtjax.cli.running import progress
from mtjax.evaluate.sets.demo import JOBS, QUESTION
from mtjax.native.bandwidth import measure_bandwidth
from mtjax.pretrained import DEMO_PROMPTS, for_decoding, load_pretrained, missing
from mtjax.registry.build import run_settings
from mtjax.report.comparison import DRAFTED, colored, compare, contenders, table

_MODEL = flags.DEFINE_string(
  "model", None, "Model to decode with; default: smollm2 where it is installed, else target."
)
_MAX_TOKENS = flags.DEFINE_integer(
  "max_tokens", 96, "Number of tokens to generate per prompt.", lower_bound=1
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", 3, "Number of interleaved rounds, of which times are medians.", lower_bound=1
)
_METHODS = flags.DEFINE_list(
  "methods",
  ["ar", "lookup", "suffix", "auto"],
  "Methods to compare; speed and text are compared with those of the first one.",
)


def run() -> None:
  console = Console(highlight=False)
  name = _MODEL.value or "smollm2"
  if _MODEL.value is None and (reason := missing("smollm2")):
    console.print(f"A bundled model of 8 million parameters stands in for SmolLM2: {reason}")
    name = "target"
  config = ar.get_config()
  # float32 makes a small model too large for the machine's caches, and other systems read it too.
  config.update(model=name, max_tokens=_MAX_TOKENS.value, weights="float32")
  began = time.monotonic()
  text = for_decoding(load_pretrained(name), config.weights)
  jobs = dict.fromkeys(DEMO_PROMPTS)
  if hasattr(text.tokenizer, "encode_chat"):
    config.prompt_format = "chat"
    answer(console, text, config, began)
    jobs = {prompt: title for title, prompt in JOBS.items()}
  methods = contenders(_METHODS.value, config, text)
  settings = dict(run_settings(config), rounds=_ROUNDS.value, progress=progress)
  inputs = formatted(list(jobs), text.tokenizer, config.prompt_format)
  *_, results = compare(text, inputs, methods, **settings)
  best = max(results, key=lambda result: result.speed_up(results[0]))
  for (prompt, title), run in zip(jobs.items(), best.runs, strict=True):
    console.rule(title or "", align="left")
    console.print(f"[bold]{escape(prompt)}[/]", end="\n\n" if title else "")
    console.print(colored(text, run.tokens[0], run.drafted[0]), end="\n\n")
  console.print(f"[{DRAFTED}]proposed by {best.name}[/], checked by the model")
  console.print(table(results))
  for line in (when_it_pays(results), share_of_memory(text.params, results[0])):
    console.print(line)


def answer(console, text, config, began: float) -> None:
  """Prints the answer to a question as it is written, and when its first token came."""
  console.print(f"[bold]{QUESTION}[/]")
  (prompt,) = formatted([QUESTION], text.tokenizer, config.prompt_format)
  first = None
  for (piece,) in text.stream([prompt], **run_settings(config)):
    first = first or time.monotonic() - began
    print(piece, end="", flush=True)
  console.print(f"\n(first token {first:.1f} s after the start of loading)\n")


def when_it_pays(results) -> str:
  """Returns a sentence with L(n), the time of a forward pass of n tokens over that of one."""
  ar, *others = ((one.name, one.ms_per_token * one.tokens_per_forward) for one in results)
  costs = ", ".join(f"{cost / ar[1]:.2f} with {name}" for name, cost in others)
  return (
    "A round pays if it emits more tokens than it costs plain ones. With its share of the prompt's "
    f"time it costs here: {costs}."
  )


def share_of_memory(params, plain) -> str:
  """Returns a sentence that compares plain decoding with reading the weights once per token."""
  size = bytes_read(params)
  limit, rate = measure_bandwidth(size) * 1e9 / size, 1e3 / plain.ms_per_token
  return (
    f"{plain.name}: {rate:,.0f} tokens/s, {rate / limit:.0%} of the {limit:,.0f} at which "
    f"{size / 1e6:.0f} MB of weights come from this memory."
  )


if __name__ == "__main__":
  launch.main(run)
