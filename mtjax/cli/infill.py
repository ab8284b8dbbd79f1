r"""Fills blanks: mtjax-infill --text="The cat ___ on the mat." --length=4

--length is given once for all blanks or once per blank: a number of tokens, or candidates such as
--length=2,4,6, of which the most probable one is chosen. On a terminal the text is shown while it
is filled, each token in the colour of its forward pass; elsewhere only the filled text is printed.
--picture=passes.png draws the forward pass that filled each position; --output saves everything.
--html=run.html writes one page to open in a browser, where the text is filled pass by pass.
--method is the name of a fill method, with settings if you like:
--method=self:window=8:verifier=block. docs/methods.md has the names, the settings, and what each
method keeps of the model's joint distribution.
--distributed makes this one of several processes, and --mesh spans the devices of all of them:
docs/guides/multi_host.md.
--regex='(cat|dog)s?' or --json_schema=FILE says what the text of a blank must match.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from absl import flags
from rich.console import Console
from rich.live import Live

from mtjax.cli import flags as launch
from mtjax.cli.hosts.flags import HostFlags
from mtjax.cli.hosts.once import writes_here
from mtjax.cli.method_names import fill_method_of
from mtjax.cli.running import results_file
from mtjax.registry import counters
from mtjax.registry.methods import filling

if TYPE_CHECKING:
  from mtjax.anysubset import FillMethod

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
_REGEX = flags.DEFINE_multi_string(
  "regex",
  [],
  "Regular expression that the text of a blank matches, without the space before it (extra "
  "constraints); once for all blanks or once per blank, empty for any text.",
  flag_values=VALUES,
)
_JSON_SCHEMA = flags.DEFINE_multi_string(
  "json_schema",
  [],
  "File of a JSON schema that the text of a blank satisfies; otherwise as --regex.",
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
_HTML = flags.DEFINE_string(
  "html",
  None,
  "HTML page to write: the text filling in, with pass and probability of each token. Implies "
  "--history.",
  flag_values=VALUES,
)
_MESH = flags.DEFINE_string(
  "mesh",
  "",
  "Devices to run on, such as data:2,model:2: lengths that are tried are split over data, weights "
  "and heads over model. Default: one.",
  flag_values=VALUES,
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "JSON file to write text, tokens, passes and counters to.", flag_values=VALUES
)
_HOSTS = HostFlags.define(VALUES)


def run() -> None:
  template = launch.required(_TEXT, '"The cat ___ on the mat."').replace("\\n", "\n")
  lengths = _lengths(template)
  method = fill_method_of(_METHOD, _WINDOW)
  with _HOSTS.joined(None, VALUES):
    _fill(template, lengths, method)


def _fill(template: str, lengths: list[int | list[int]], method: "FillMethod") -> None:
  with _HOSTS.together("checking where to write"):
    if writes_here():
      launch.check_output(_OUTPUT, _PICTURE, _HTML)
      launch.check_picture(_PICTURE)
  from mtjax import hosts
  from mtjax.pretrained import for_decoding, load_pretrained
  from mtjax.report.filling import colored, passes_picture
  from mtjax.report.terminal import counters_table
  from mtjax.sampling.logits import Sampling

  with _HOSTS.together("reading what blanks must match"):
    patterns = _patterns(template)
  hosts.check_same("patterns of the blanks", patterns)
  model = for_decoding(load_pretrained(_MODEL.value, mesh=_HOSTS.mesh(_MESH.value, "--mesh")))
  settings: dict[str, Any] = dict(
    lengths=lengths,
    method=method,
    sampling=Sampling(temperature=_TEMPERATURE.value, top_p=_TOP_P.value),
    key=_SEED.value,
    constraint=_constraint(template, patterns, model.tokenizer),
    history=_HISTORY.value or _HTML.value is not None,
  )
  console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
  tried = math.prod(1 if isinstance(length, int) else len(set(length)) for length in lengths)
  with results_file(_HTML.value, dump=_page) as write_page:
    result = None
    try:
      for newest in _results(console, model, template, settings, is_one=tried == 1):
        result = newest
    finally:
      # Also what was filled before the run was stopped.
      if result is not None and _HTML.value is not None:
        write_page(_record(result, model, tried))
  assert result is not None
  if not console.is_terminal:
    print(result.text)
  elif tried > 1:
    console.print(colored(result, model.tokenizer))
  if tried > 1:
    chosen = ", ".join(map(str, result.lengths))
    errors.print(f" lengths {chosen}; counters of all {tried} candidates together:", style="dim")
  errors.print(counters_table(result.counters))
  with results_file(_OUTPUT.value) as write:
    write(_record(result, model, tried))
  if _PICTURE.value is not None and writes_here():
    passes_picture(result, model.tokenizer).savefig(_PICTURE.value, dpi=120)


def _results(console, model, template, settings, *, is_one: bool) -> Iterator[Any]:
  """Yields the text after each round where it is shown or written, and else at the end alone.

  `is_one`: whether there is one choice of lengths; several are filled as a batch to its end.
  """
  from mtjax import hosts
  from mtjax.anysubset.infill import infill, stream_infill
  from mtjax.report.filling import colored

  # Every process makes the passes that process 0 shows, and only this one may have a terminal.
  if not is_one or not hosts.of_first(console.is_terminal or _HTML.value is not None):
    yield infill(model, template, **settings)
  elif not console.is_terminal:
    yield from stream_infill(model, template, **settings)
  else:
    with Live(console=console, auto_refresh=False) as live:
      for result in stream_infill(model, template, **settings):
        live.update(colored(result, model.tokenizer), refresh=True)
        yield result


def _record(result, model, tried: int) -> dict[str, Any]:
  from mtjax.report.history.run_json import history_record

  record = dict(dataclasses.asdict(result), tried=tried)
  if result.history is not None:
    record |= history_record(result.history, model.tokenizer, [result.tokens])
  return record


def _page(record: Mapping[str, Any]) -> str:
  from mtjax.report.history.page import page_of_record

  shown = (_MODEL, _METHOD, _LENGTH, _TEMPERATURE, _TOP_P, _REGEX, _JSON_SCHEMA, _SEED)
  settings = {holder.name: holder.value for holder in shown}
  return page_of_record(dict(record, settings=settings)).text


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


def _patterns(template: str) -> list[str]:
  """Returns the expression of each blank; "": any text."""
  from mtjax.anysubset.blanks import count_blanks
  from mtjax.registry.constraints import pattern_of

  launch.check_alone(_REGEX, _JSON_SCHEMA)
  name = "json_schema" if _JSON_SCHEMA.value else "regex"
  given = _JSON_SCHEMA.value or _REGEX.value
  patterns = [pattern_of(f"--{name}", **{name: one}) for one in given]
  blanks = count_blanks(template)
  if len(patterns) not in (0, 1, blanks):
    raise ValueError(
      f"there are {len(patterns)} --{name} for {blanks} blanks: give one for all, or one per blank"
    )
  return patterns * blanks if len(patterns) == 1 else patterns


def _constraint(template: str, patterns: list[str], tokenizer) -> list[Any] | None:
  from mtjax.anysubset.blanks import starts_with_space
  from mtjax.constraints import regex

  if not any(patterns):
    return None
  spaces = starts_with_space(template)
  return [
    regex(tokenizer, f"{' ' * space}(?:{pattern})") if pattern else None
    for space, pattern in zip(spaces, patterns, strict=True)
  ]


def entry() -> None:
  """Runs the launcher with the flags of the command line, and exits with its code."""
  launch.main(run, VALUES)


if __name__ == "__main__":
  entry()
