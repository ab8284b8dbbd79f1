r"""Fills blanks: mtjax-infill --text="The cat ___ on the mat." --length=4

--length is given once for all blanks or once for each, as a number or as candidates, from which the
likeliest is taken: --length=2,4,6. On a terminal the text is shown as it fills, each token in the
colour of its forward pass; elsewhere the filled text is all that is printed. --picture=when.png
draws which position was filled when; --output keeps everything. --method=confidence decides the
--window surest positions a pass, which is another law (see mtjax.anysubset.filling.confidence); the
others keep the model's joint law.
"""

import dataclasses
import math
from typing import Any

from absl import flags
from rich.console import Console
from rich.live import Live

from mtjax.cli import flags as launch
from mtjax.cli.running import results_file
from mtjax.registry import counters

# --help shows the module's text.
__doc__ = f"{__doc__}\n{counters.legend(counters.FILLING)}"

# Not absl's own: the modules of several launchers can be imported side by side.
VALUES = flags.FlagValues()

_MODEL = flags.DEFINE_string(
  "model", "anysubset", "Bundled any-subset model, folder or id.", flag_values=VALUES
)
_TEXT = flags.DEFINE_string("text", None, "Text with ___ for each blank.", flag_values=VALUES)
_LENGTH = flags.DEFINE_multi_string(
  "length", ["8"], "Tokens of a blank, or candidates: 2,4,6.", flag_values=VALUES
)
_METHOD = flags.DEFINE_string(
  "method", "self", "sequential, self, fused, once, ngram or confidence.", flag_values=VALUES
)
_WINDOW = flags.DEFINE_integer(
  "window", 4, "Tokens drafted or decided at once.", lower_bound=1, flag_values=VALUES
)
_TEMPERATURE = flags.DEFINE_float(
  "temperature", 0.0, "0: greedy.", lower_bound=0.0, flag_values=VALUES
)
_TOP_P = flags.DEFINE_float("top_p", 1.0, "Nucleus to draw from.", 0.0, 1.0, flag_values=VALUES)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws.", flag_values=VALUES)
_PICTURE = flags.DEFINE_string(
  "picture", None, "Picture (png, pdf, svg) of which position was filled when.", flag_values=VALUES
)
_HISTORY = flags.DEFINE_bool(
  "history",
  False,
  "Keep what each pass decided, with log-probabilities, and its time; slower, the same text.",
  flag_values=VALUES,
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "JSON file for text, tokens, passes, counters.", flag_values=VALUES
)


def run() -> None:
  template = launch.required(_TEXT, '"The cat ___ on the mat."').replace("\\n", "\n")
  lengths = _lengths(template)
  if _METHOD.value == "sequential":
    launch.check_unused("with --method=sequential", _WINDOW)
  launch.check_output(_OUTPUT, _PICTURE)
  launch.check_picture(_PICTURE)
  from mtjax.anysubset.filling.names import get_fill_method
  from mtjax.anysubset.infill import infill, stream_infill
  from mtjax.pretrained import load_pretrained, weights_for_decoding
  from mtjax.report.filling import colored, save_picture
  from mtjax.report.history.run_json import history_record
  from mtjax.report.terminal import counters_table
  from mtjax.sampling.logits import Sampling
  from mtjax.text import TextModel

  method = get_fill_method(_METHOD.value, _WINDOW.value)
  loaded = load_pretrained(_MODEL.value)
  params = weights_for_decoding(loaded.params, "stored")
  model = TextModel(loaded.model, params, loaded.tokenizer)
  sampling = Sampling(temperature=_TEMPERATURE.value, top_p=_TOP_P.value)
  settings: dict[str, Any] = dict(
    lengths=lengths, method=method, sampling=sampling, key=_SEED.value, history=_HISTORY.value
  )
  console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
  tried = math.prod(1 if isinstance(length, int) else len(set(length)) for length in lengths)
  if not console.is_terminal:
    found = infill(model, template, **settings)
    print(found.text)
  elif tried == 1:
    with Live(console=console, auto_refresh=False) as live:
      for found in stream_infill(model, template, **settings):
        live.update(colored(found, model.tokenizer), refresh=True)
  else:
    found = infill(model, template, **settings)
    console.print(colored(found, model.tokenizer))
  if tried > 1:
    chosen = ", ".join(map(str, found.lengths))
    errors.print(f" lengths {chosen}; of all {tried} that were tried:", style="dim")
  errors.print(counters_table(found.counters))
  with results_file(_OUTPUT.value) as write:
    record = dict(dataclasses.asdict(found), tried=tried)
    if found.history is not None:
      record |= history_record(found.history, model.tokenizer)
    write(record)
  if _PICTURE.value is not None:
    save_picture(_PICTURE.value, found, model.tokenizer)


def _lengths(template: str) -> list[int | list[int]]:
  from mtjax.anysubset.blanks import count_blanks

  try:
    each = [[int(x) for x in value.split(",")] for value in _LENGTH.value]
  except ValueError:
    raise ValueError(f"--length is a number or numbers, as 2,4,6: got {_LENGTH.value}") from None
  blanks = max(count_blanks(template), 1)
  each = each * blanks if len(each) == 1 else each
  return [x[0] if len(x) == 1 else x for x in each]


def entry() -> None:
  """Runs the launcher with the flags of the command line, and exits with its code."""
  launch.main(run, VALUES)


if __name__ == "__main__":
  entry()
