r"""Fills blanks: mtjax-infill --text="The cat ___ on the mat." --length=4

--length is given once for all blanks or once per blank: a number of tokens, or candidates such as
--length=2,4,6, of which the most probable one is chosen. On a terminal the text is shown while it
is filled, each token in the colour of its forward pass; elsewhere only the filled text is printed.
--picture=passes.png draws the forward pass that filled each position; --output saves everything.
--method is the name of a fill method, with settings if you like:
--method=self:window=8:verifier=block. docs/methods.md has the names, the settings, and what each
method keeps of the model's joint distribution.
"""

import dataclasses
import math
from typing import Any

from absl import flags
from rich.console import Console
from rich.live import Live

from mtjax.cli import flags as launch
from mtjax.cli.method_names import fill_method_of
from mtjax.cli.running import results_file
from mtjax.registry import counters
from mtjax.registry.methods import filling

# --help shows the module's docstring.
__doc__ = f"{__doc__}\n{counters.legend(counters.FILLING)}"

# Flags of its own, not absl's global ones: several launchers can be imported side by side.
VALUES = flags.FlagValues()

_MODEL = flags.DEFINE_string(
  "model",
  "anysubset",
  "Any-subset model: a bundled one, a folder or a Hugging Face id.",
  flag_values=VALUES,
)
_TEXT = flags.DEFINE_string(
  "text", None, "Text to fill, with ___ for each blank.", flag_values=VALUES
)
_LENGTH = flags.DEFINE_multi_string(
  "length",
  ["8"],
  "Number of tokens of a blank, or candidates as 2,4,6; once for all blanks or once per blank.",
  flag_values=VALUES,
)
_METHOD = flags.DEFINE_string(
  "method",
  "self",
  f"Method of filling: {', '.join(filling())}; NAME:setting=value:... changes settings.",
  flag_values=VALUES,
)
_WINDOW = flags.DEFINE_integer(
  "window",
  4,
  "Number of tokens to draft per round, or to decide per pass with --method=confidence.",
  lower_bound=1,
  flag_values=VALUES,
)
_TEMPERATURE = flags.DEFINE_float(
  "temperature",
  0.0,
  "Temperature to sample with; 0 is greedy.",
  lower_bound=0.0,
  flag_values=VALUES,
)
_TOP_P = flags.DEFINE_float(
  "top_p",
  1.0,
  "Sample from the smallest set of tokens with this total probability.",
  0.0,
  1.0,
  flag_values=VALUES,
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the random numbers.", flag_values=VALUES)
_PICTURE = flags.DEFINE_string(
  "picture",
  None,
  "Picture (png, pdf, svg) of the forward pass that filled each position.",
  flag_values=VALUES,
)
_HISTORY = flags.DEFINE_bool(
  "history",
  False,
  "Keep what each pass decided, with log-probabilities, and its time; slower, the same text.",
  flag_values=VALUES,
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "JSON file to write text, tokens, passes and counters to.", flag_values=VALUES
)


def run() -> None:
  template = launch.required(_TEXT, '"The cat ___ on the mat."').replace("\\n", "\n")
  lengths = _lengths(template)
  method = fill_method_of(_METHOD, _WINDOW)
  launch.check_output(_OUTPUT, _PICTURE)
  launch.check_picture(_PICTURE)
  from mtjax.anysubset.infill import infill, stream_infill
  from mtjax.pretrained import for_decoding, load_pretrained
  from mtjax.report.filling import colored, passes_picture
  from mtjax.report.history.run_json import history_record
  from mtjax.report.terminal import counters_table
  from mtjax.sampling.logits import Sampling

  model = for_decoding(load_pretrained(_MODEL.value))
  sampling = Sampling(temperature=_TEMPERATURE.value, top_p=_TOP_P.value)
  settings: dict[str, Any] = dict(
    lengths=lengths, method=method, sampling=sampling, key=_SEED.value, history=_HISTORY.value
  )
  console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
  tried = math.prod(1 if isinstance(length, int) else len(set(length)) for length in lengths)
  if not console.is_terminal:
    result = infill(model, template, **settings)
    print(result.text)
  elif tried == 1:
    with Live(console=console, auto_refresh=False) as live:
      for result in stream_infill(model, template, **settings):
        live.update(colored(result, model.tokenizer), refresh=True)
  else:
    result = infill(model, template, **settings)
    console.print(colored(result, model.tokenizer))
  if tried > 1:
    chosen = ", ".join(map(str, result.lengths))
    errors.print(f" lengths {chosen}; counters of all {tried} candidates together:", style="dim")
  errors.print(counters_table(result.counters))
  with results_file(_OUTPUT.value) as write:
    record = dict(dataclasses.asdict(result), tried=tried)
    if result.history is not None:
      record |= history_record(result.history, model.tokenizer)
    write(record)
  if _PICTURE.value is not None:
    passes_picture(result, model.tokenizer).savefig(_PICTURE.value, dpi=120)


def _lengths(template: str) -> list[int | list[int]]:
  from mtjax.anysubset.blanks import count_blanks

  try:
    each = [[int(x) for x in value.split(",")] for value in _LENGTH.value]
  except ValueError:
    raise ValueError(
      f"--length must be a number, or candidates as 2,4,6: got {_LENGTH.value}"
    ) from None
  blanks = max(count_blanks(template), 1)
  each = each * blanks if len(each) == 1 else each
  return [x[0] if len(x) == 1 else x for x in each]


def entry() -> None:
  """Runs the launcher with the flags of the command line, and exits with its code."""
  launch.main(run, VALUES)


if __name__ == "__main__":
  entry()
