r"""Compares methods of filling blanks side by side, one text at a time.

python -m experiments.bench.infill --code=HUMANEVAL_INFILLING.jsonl.gz --text="books=file:valid/*"

--ways: fill methods by name, as docs/methods.md lists them, but self is ASSD as it was published
(2504.20456) and bonus adds one more token after a window that was accepted whole; authors: ASSD
without a cache, all entries in every pass. A number behind one is its window. --code: single-line
or random-span problems of humaneval_infilling, each with its one blank. --text (name=source,
several times; see mtjax.data.sources) at every --rate: rows of that text with as large a share of
their tokens missing, scattered. Times are medians over --repeats of interleaved runs without
compilation, as ratios to the first of --ways: of the whole run, and of what comes after the pass
that reads the context, which all methods have in common.

This command makes the table in docs/benchmarks.md (DATA is the developer data set):

python -m experiments.bench.infill --count=8 --rate=0.05 --rate=0.15 --weights=stored,plain \
  --text="books=file:DATA/books/valid/*.txt.gz#header=-------" \
  --code=DATA/humaneval_infilling/SingleLineInfilling_000_081.jsonl.gz

and this one the table of a wider model:

python -m experiments.bench.infill --count=8 --repeats=3 --mlp_dim=24000 --rate=0.15 \
  --text="books=file:DATA/books/valid/*.txt.gz#header=-------" --weights=stored,float32,plain \
  --ways=sequential,self4,bonus4,bonus8,fused2,once4
"""

import dataclasses
import itertools
import sys

from absl import flags
from rich.console import Console

from mtjax.cli import flags as launch
from mtjax.cli.running import progress, results_file

_MODEL = flags.DEFINE_string(
  "model", "anysubset", "Any-subset model: a bundled one, a folder or a Hugging Face id."
)
_CODE = flags.DEFINE_multi_string("code", [], "File of humaneval_infilling; may be repeated.")
_TEXT = flags.DEFINE_multi_string("text", [], "Text to fill, as name=source; may be repeated.")
_RATE = flags.DEFINE_multi_float(
  "rate", [0.15], "Share of the tokens of a text that is missing; may be repeated."
)
_SIZE = flags.DEFINE_integer("size", 191, "Number of tokens per text.", lower_bound=8)
_COUNT = flags.DEFINE_integer("count", 16, "Number of texts per set.", lower_bound=1)
_MAX_TOKENS = flags.DEFINE_integer(
  "max_tokens", 24, "Maximum number of tokens in a blank of --code.", lower_bound=1
)
_TEMPERATURE = flags.DEFINE_float(
  "temperature", 1.0, "Temperature to sample with; it must be above 0.", lower_bound=1e-3
)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Number of runs per text.", lower_bound=1)
_WAYS = flags.DEFINE_list(
  "ways",
  "sequential,self2,self4,self8,self16,bonus8,ngram4,fused2,fused4,once3,once4,once6,authors5",
  "Methods of filling, with their windows; speed is relative to the first.",
)
_KINDS = ("stored", "float32", "plain")
_WEIGHTS = flags.DEFINE_list(
  "weights",
  "stored",
  "Weights to measure with. stored: as in decoding; float32: 32 bits each; plain: float32 arrays "
  "that XLA multiplies without our kernels.",
)
_MLP_DIM = flags.DEFINE_integer(
  "mlp_dim",
  None,
  "Pad MLPs with zeros to this width: the same distribution at the cost of a larger model.",
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the figures to.")
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")


def run() -> None:
  if not _CODE.value and not _TEXT.value:
    raise ValueError("give a set: --code=FILE.jsonl.gz or --text=name=source")
  launch.check_output(_OUTPUT, _RESULTS, inputs=[_CODE, _TEXT])
  _check_names()
  from mtjax.bench.infill import get_way, measure

  methods = {name: get_way(name) for name in launch.distinct(_WAYS)}
  kinds = launch.distinct(_WEIGHTS)
  unknown = [kind for kind in kinds if kind not in _KINDS]
  if unknown:
    raise ValueError(f"--weights={unknown[0]} is none of {', '.join(_KINDS)}")
  from mtjax.bench.pad_mlp import pad_mlp
  from mtjax.evaluate.sets.infill import code_spans, scattered
  from mtjax.evaluate.tasks.humaneval import read_problems
  from mtjax.evaluate.texts import named_documents
  from mtjax.pretrained import load_pretrained, weights_for_decoding
  from mtjax.report import results
  from mtjax.report.infilling_tables import fill_speed_table

  for path in _CODE.value:  # before the model is loaded
    read_problems(path, ("prompt", "canonical_solution"))
  text = load_pretrained(_MODEL.value)
  model, params = text.model, text.params
  if _MLP_DIM.value is not None:
    model, params = pad_mlp(model, params, _MLP_DIM.value)
  stored = {
    k: (model, params) if k == "plain" else weights_for_decoding(model, params, k) for k in kinds
  }
  cut = dict(size=_SIZE.value, count=_COUNT.value)
  sets = {
    _of_code(path): code_spans(path, text.tokenizer, max_tokens=_MAX_TOKENS.value, **cut)
    for path in _CODE.value
  }
  for name, documents in named_documents(_TEXT.value, text.tokenizer, limit=200_000).items():
    rows = [tokens for tokens, _ in documents]
    sets |= {_of_text(name, rate): scattered(rows, rate=rate, **cut) for rate in _RATE.value}
  console, records, tables = Console(file=sys.stdout, width=110), {}, []

  def publish(complete):
    results.write(
      _RESULTS.value,
      "infill",
      tables=tables,
      rows=records,
      settings=launch.settings(__name__),
      units=dict(milliseconds="ms per token", first_milliseconds="ms", nats="nats per token"),
      rounds=_REPEATS.value,
      complete=complete,
    )

  own = flags.FLAGS.get_flags_for_module(sys.modules[__name__])
  settings = {flag.name: flag.value for flag in own}
  cases = list(itertools.product(kinds, sets.items()))
  with results_file(_OUTPUT.value) as write:
    for number, (kind, (name, problems)) in enumerate(cases, 1):
      title = f"{name}, weights {kind}" if len(kinds) > 1 else name
      report = measure(
        *stored[kind],
        problems,
        methods,
        temperature=_TEMPERATURE.value,
        repeats=_REPEATS.value,
        progress=lambda what, where=f"{title}, {number} of {len(cases)}": progress(
          f"{where}: {what}"
        ),
      )
      tables.append(fill_speed_table(title, report))
      console.print(tables[-1].for_terminal())
      records[title] = dataclasses.asdict(report)
      write(dict(settings=settings, sets=records))
      publish(complete=number == len(cases))


def _of_code(path: str) -> str:
  return f"code, {path.rsplit('/', 1)[-1].split('_')[0]}"


def _of_text(name: str, rate: float) -> str:
  return f"{name}, {100 * rate:g}%"


def _check_names() -> None:
  """Raises ValueError for two sets with one name, of which only the last would be kept."""
  named = [(_of_code(path), f"--code={path}") for path in _CODE.value]
  for entry in _TEXT.value:
    name = entry.partition("=")[0]
    named += [(_of_text(name, r), f"--text={entry} with --rate={r}") for r in _RATE.value]
  known: dict[str, str] = {}
  for name, flag in named:
    if name in known:
      raise ValueError(f"{known[name]} and {flag} would both be called {name!r}")
    known[name] = flag


if __name__ == "__main__":
  launch.main(run)
