r"""Scores texts: mtjax-evaluate --model=target --text=books=file:valid/*.txt.gz

Prints bits per byte, which compares models of any tokenizer, and perplexity per token, which does
not. --text is name=source (see mtjax.data.sources) and may be given several times. A document
is read in overlapping rows, so that no token is predicted from less than --context others.

The bundled models' validation parts (DATA is the developer data set):

mtjax-evaluate --model=target \
  --text="books=file:DATA/books/valid/*.txt.gz#header=-------" \
  --text="code=file:DATA/humaneval/*.jsonl.gz#text_key={prompt}{canonical_solution}" \
  --text="gsm8k=file:DATA/gsm8k/test_dev.jsonl.gz#text_key=Question: {question}\nAnswer: {answer}"

With --orders, an any-subset model in several orders: mtjax/cli/evaluate_orders.py.
Or, with --task, how well an any-subset model fills blanks: see mtjax/cli/evaluate_infilling.py.
"""

import dataclasses
import sys

from absl import flags
from rich.console import Console

from mtjax.cli import evaluate_infilling, evaluate_orders
from mtjax.cli import flags as launch
from mtjax.cli.running import progress, results_file, seldom

# Not absl's own: the modules of several launchers can be imported side by side.
VALUES = flags.FlagValues()

_MODEL = flags.DEFINE_string(
  "model", None, "Bundled model, folder or id; default: target.", flag_values=VALUES
)
_WEIGHTS = flags.DEFINE_enum(
  "weights", "stored", ["stored", "int8"], "As in decoding.", flag_values=VALUES
)
_TEXT = flags.DEFINE_multi_string(
  "text", [], "name=source; may be given several times.", flag_values=VALUES
)
_BYTES = flags.DEFINE_integer(
  "bytes", None, "Score about the first bytes of each text.", 1, flag_values=VALUES
)
_LENGTH = flags.DEFINE_integer(
  "length",
  None,
  "Tokens a row; default: 512, with --task or --orders 255.",
  lower_bound=1,
  flag_values=VALUES,
)
_CONTEXT = flags.DEFINE_integer(
  "context", None, "Least tokens before one; default: half.", 0, flag_values=VALUES
)
_BATCH = flags.DEFINE_integer("batch", 8, "Rows scored at once.", lower_bound=1, flag_values=VALUES)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the scores.", flag_values=VALUES)
_RESULTS = flags.DEFINE_string(
  "results", None, "JSON file that docs/benchmarks.md is made from.", flag_values=VALUES
)


def run() -> None:
  inputs = [evaluate_infilling.DATA, _TEXT]
  launch.check_output(_OUTPUT, _RESULTS, evaluate_infilling.RECORDS, inputs=inputs)
  if evaluate_infilling.TASK.value is not None:
    launch.check_unused("with --task", _TEXT, _BYTES, _CONTEXT, _BATCH, *evaluate_orders.FLAGS)
    if evaluate_infilling.SAMPLE.present:
      launch.check_unused("with --sample", _MODEL, _WEIGHTS, _LENGTH, _RESULTS)
    return evaluate_infilling.run(
      _MODEL.value, _WEIGHTS.value, _LENGTH.value, _OUTPUT.value, _RESULTS.value
    )
  launch.check_unused("without --task", *evaluate_infilling.FLAGS)
  if not _TEXT.value:
    raise ValueError('--text is missing, for example --text="books=file:valid/*.txt.gz"')
  if evaluate_infilling.ORDERS.present:
    launch.check_unused("with --orders", _CONTEXT)
    return evaluate_orders.run(
      _MODEL.value or "anysubset",
      _TEXT.value,
      launch.distinct(evaluate_infilling.ORDERS),
      weights=_WEIGHTS.value,
      limit=_BYTES.value,
      length=_LENGTH.value,
      batch=_BATCH.value,
      output=_OUTPUT.value,
      results_path=_RESULTS.value,
    )
  launch.check_unused("without --orders", *evaluate_orders.FLAGS)
  model, length = _MODEL.value or "target", _LENGTH.value or 512
  context = length // 2 if _CONTEXT.value is None else _CONTEXT.value
  # Imported here: a mistake in the command is answered at once.
  from mtjax.evaluate.perplexity import score
  from mtjax.evaluate.texts import named_documents
  from mtjax.models import check_causal
  from mtjax.models.quantize import to_int8
  from mtjax.pretrained import load_pretrained
  from mtjax.report import results
  from mtjax.report.speed_tables import Cells

  text = load_pretrained(model)
  try:
    check_causal(text.model, model)
  except ValueError as error:
    raise ValueError(f"{error}, unless --orders or --task says how it is scored") from None
  params = to_int8(text.params) if _WEIGHTS.value == "int8" else text.params
  texts = named_documents(_TEXT.value, text.tokenizer, limit=_BYTES.value)
  records, lines = {}, []
  settings = dict(model=model, weights=_WEIGHTS.value, text=_TEXT.value, bytes=_BYTES.value)
  settings |= dict(length=length, context=context)
  with results_file(_OUTPUT.value) as write:
    for number, (name, documents) in enumerate(texts.items(), 1):
      progress(f"scoring {name}, {number} of {len(texts)}")
      step = seldom(progress)
      found = score(
        text.model,
        params,
        documents,
        start=text.tokenizer.bos_id,
        length=length,
        context=context,
        batch=_BATCH.value,
        progress=lambda done, rows, name=name, step=step: step(f"{name}: row {done} of {rows}"),
      )
      bits, perplexity = found.bits_per_byte, found.perplexity
      counts = f"{found.tokens:,}", f"{found.bytes:,}"
      lines.append((name, f"{bits:.4f}", f"{perplexity:.2f}", *counts))
      records[name] = dict(
        dataclasses.asdict(found), bits_per_byte=bits, perplexity_per_token=perplexity
      )
      write(dict(settings=settings, texts=records))
  header = ("text", "bits per byte", "perplexity per token", "tokens", "bytes")
  table = Cells(f"{model}, rows of {length} tokens", header, lines)
  Console(file=sys.stdout).print(table.for_terminal())
  results.write(
    _RESULTS.value,
    "perplexity",
    tables=[table],
    rows=records,
    units=dict(bits_per_byte="bits per byte"),
    settings=settings,
  )


def entry() -> None:
  """Runs the launcher with the flags of the command line, and exits with its code."""
  launch.main(run, VALUES, evaluate_infilling.VALUES, evaluate_orders.VALUES)


if __name__ == "__main__":
  entry()
