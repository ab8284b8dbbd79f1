r"""Scores texts: mtjax-evaluate --model=target --text=books=file:valid/*.txt.gz

Prints bits per byte, which models with different tokenizers can be compared by, and perplexity per
token, which is comparable only within one tokenizer. --text is name=source (see mtjax.data.sources)
and may be given several times. A document longer than --length is read in overlapping rows, so that
each token after the first row is predicted from at least --context tokens.

The bundled models' validation parts (DATA is the developer data set):

mtjax-evaluate --model=target \
  --text="books=file:DATA/books/valid/*.txt.gz#header=-------" \
  --text="code=file:DATA/humaneval/*.jsonl.gz#text_key={prompt}{canonical_solution}" \
  --text="gsm8k=file:DATA/gsm8k/test_dev.jsonl.gz#text_key=Question: {question}\nAnswer: {answer}"

--distributed makes this one of several processes, and --mesh spans the devices of all of them:
docs/guides/multi_host.md.

With --orders it scores an any-subset model in several orders: see mtjax/cli/evaluate_orders.py.
With --likelihood it scores a masked diffusion model: see mtjax/cli/likelihood/launch.py.
With --task it measures how well a model fills blanks (mtjax/cli/evaluate_infilling.py), or how well
it answers in writing with several methods of decoding (mtjax/cli/evaluate_answers.py). With
--task=generative_perplexity it judges texts of any system (mtjax/cli/likelihood/generative.py).
"""

import dataclasses
import sys

from absl import flags
from rich.console import Console

from mtjax.cli import evaluate_answers, evaluate_infilling, evaluate_orders
from mtjax.cli import flags as launch
from mtjax.cli.hosts.flags import HostFlags
from mtjax.cli.hosts.once import writes_here
from mtjax.cli.likelihood import generative
from mtjax.cli.likelihood import launch as likelihood
from mtjax.cli.running import progress, results_file, seldom

# Flags of its own, not absl's global ones: several launchers can be imported side by side.
VALUES = flags.FlagValues()

_MODEL = flags.DEFINE_string(
  "model",
  None,
  "Model to score: a bundled one, smollm2, a folder, a GGUF file or a Hugging Face id. Default: "
  "target, or anysubset with --orders or a task that fills blanks.",
  flag_values=VALUES,
)
_WEIGHTS = flags.DEFINE_enum(
  "weights",
  "stored",
  ["stored", "int8"],
  "stored: the weights as they are stored; int8: quantized to 8 bits first, as in decoding.",
  flag_values=VALUES,
)
_TEXT = flags.DEFINE_multi_string(
  "text",
  [],
  "Text to score, as name=source. Repeat the flag for several texts.",
  flag_values=VALUES,
)
_BYTES = flags.DEFINE_integer(
  "bytes",
  None,
  "Score about this many bytes from the beginning of each text. Default: all.",
  1,
  flag_values=VALUES,
)
_LENGTH = flags.DEFINE_integer(
  "length",
  None,
  "Number of tokens per row. Default: 512, or 255 with --task or --orders.",
  lower_bound=1,
  flag_values=VALUES,
)
_CONTEXT = flags.DEFINE_integer(
  "context",
  None,
  "Every scored token has at least this many earlier tokens to see. Default: half of --length.",
  0,
  flag_values=VALUES,
)
_BATCH = flags.DEFINE_integer(
  "batch", 8, "Number of rows to score or to answer at once.", lower_bound=1, flag_values=VALUES
)
_MESH = flags.DEFINE_string(
  "mesh",
  "",
  "Devices to run on, such as data:2,model:2: rows are split over data, weights and heads over "
  "model. Default: one.",
  flag_values=VALUES,
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "JSON file to write the scores to.", flag_values=VALUES
)
_RESULTS = flags.DEFINE_string(
  "results", None, "JSON file that docs/benchmarks.md is made from.", flag_values=VALUES
)
_HOSTS = HostFlags.define(VALUES)
_PARTS = (evaluate_infilling, evaluate_orders, evaluate_answers, likelihood)
_ALL = (VALUES, *(part.VALUES for part in _PARTS))


def run() -> int | None:
  if evaluate_infilling.TASK.present:
    _HOSTS.check_cannot("--task")
  with _HOSTS.joined(None, *_ALL):
    return _run()


def _run() -> int | None:
  inputs = [evaluate_infilling.DATA, _TEXT]
  with _HOSTS.together("checking where to write"):
    if writes_here():
      launch.check_output(_OUTPUT, _RESULTS, evaluate_infilling.RECORDS, inputs=inputs)
  if evaluate_infilling.TASK.value == generative.TASK:
    return _judge()
  if evaluate_answers.is_wanted():
    unused = (_TEXT, _BYTES, _LENGTH, _CONTEXT, *evaluate_orders.FLAGS, *evaluate_infilling.FILLING)
    launch.check_unused(f"with --task={evaluate_infilling.TASK.value}", *unused)
    return evaluate_answers.run(
      _MODEL.value, _WEIGHTS.value, _BATCH.value, _OUTPUT.value, _RESULTS.value, _MESH.value
    )
  methods = evaluate_answers.METHODS
  unused = [one for one in evaluate_answers.FLAGS if one is not methods]
  launch.check_unused("without a task that is answered in writing", *unused)
  if evaluate_infilling.TASK.value is not None:
    launch.check_unused("with --task", _TEXT, _BYTES, _CONTEXT, _BATCH, *evaluate_orders.FLAGS)
    if evaluate_infilling.SAMPLE.present:
      launch.check_unused("with --sample", _MODEL, _WEIGHTS, _LENGTH, _RESULTS, _MESH)
    return evaluate_infilling.run(
      _MODEL.value,
      _WEIGHTS.value,
      _LENGTH.value,
      _OUTPUT.value,
      _RESULTS.value,
      launch.distinct(methods) if methods.present else (),
      mesh=_MESH.value,
    )
  launch.check_unused("without --task", *evaluate_infilling.FLAGS, methods)
  if not _TEXT.value:
    raise ValueError('--text is missing, for example --text="books=file:valid/*.txt.gz"')
  if likelihood.LIKELIHOOD.value:
    launch.check_unused("with --likelihood", evaluate_infilling.ORDERS, *evaluate_orders.FLAGS)
    return likelihood.run(
      _MODEL.value or "masked",
      _TEXT.value,
      weights=_WEIGHTS.value,
      limit=_BYTES.value,
      length=_LENGTH.value or 256,
      context=64 if _CONTEXT.value is None else _CONTEXT.value,
      batch=_BATCH.value,
      mesh=_HOSTS.mesh(_MESH.value, "--mesh"),
      output=_OUTPUT.value,
      results_path=_RESULTS.value if writes_here() else None,
    )
  launch.check_unused("without --likelihood", *likelihood.FLAGS)
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
      mesh=_HOSTS.mesh(_MESH.value, "--mesh"),
      output=_OUTPUT.value,
      results_path=_RESULTS.value if writes_here() else None,
    )
  launch.check_unused("without --orders", *evaluate_orders.FLAGS)
  model, length = _MODEL.value or "target", _LENGTH.value or 512
  context = length // 2 if _CONTEXT.value is None else _CONTEXT.value
  # Imported here: a mistake in the command is answered at once.
  from mtjax import hosts
  from mtjax.evaluate.perplexity import score
  from mtjax.evaluate.texts import check_same_documents, named_documents
  from mtjax.models import check_causal
  from mtjax.models.quantize import to_int8
  from mtjax.pretrained import load_pretrained
  from mtjax.report import results
  from mtjax.report.cells import Cells

  text = load_pretrained(model, mesh=_HOSTS.mesh(_MESH.value, "--mesh"))
  try:
    check_causal(text.model, model)
  except ValueError as error:
    raise ValueError(f"{error}, unless --orders or --task says how it is scored") from None
  params = to_int8(text.params) if _WEIGHTS.value == "int8" else text.params
  with hosts.together("reading the texts"):
    texts = named_documents(_TEXT.value, text.tokenizer, limit=_BYTES.value)
  check_same_documents(texts)
  records, lines = {}, []
  settings = dict(model=model, weights=_WEIGHTS.value, text=_TEXT.value, bytes=_BYTES.value)
  settings |= dict(length=length, context=context)
  with results_file(_OUTPUT.value) as write:
    for number, (name, documents) in enumerate(texts.items(), 1):
      progress(f"scoring {name}, {number} of {len(texts)}")
      step = seldom(progress)
      result = score(
        text.model,
        params,
        documents,
        start=text.tokenizer.bos_id,
        length=length,
        context=context,
        batch=_BATCH.value,
        mesh=text.mesh,
        progress=lambda done, rows, name=name, step=step: step(f"{name}: row {done} of {rows}"),
      )
      bits, perplexity = result.bits_per_byte, result.perplexity
      counts = f"{result.tokens:,}", f"{result.bytes:,}"
      lines.append((name, f"{bits:.4f}", f"{perplexity:.2f}", *counts))
      records[name] = dict(
        dataclasses.asdict(result), bits_per_byte=bits, perplexity_per_token=perplexity
      )
      write(dict(settings=settings, texts=records))
  header = ("text", "bits per byte", "perplexity per token", "tokens", "bytes")
  table = Cells(f"{model}, rows of {length} tokens", header, lines)
  Console(file=sys.stdout).print(table.for_terminal())
  results.write(
    _RESULTS.value if writes_here() else None,
    "perplexity",
    tables=[table],
    rows=records,
    units=dict(bits_per_byte="bits per byte"),
    settings=settings,
  )


def _judge() -> None:
  judge, data, limit = evaluate_infilling.JUDGE, evaluate_infilling.DATA, evaluate_infilling.LIMIT
  used = [one.name for one in (judge, data, limit)]
  launch.check_unused(
    f"with --task={generative.TASK}",
    *(one for one in evaluate_infilling.FLAGS if one.name not in used),
    *(evaluate_infilling.ORDERS, *evaluate_orders.FLAGS, *evaluate_answers.FLAGS),
    *(_MODEL, _WEIGHTS, _TEXT, _BYTES, _LENGTH, _CONTEXT, _BATCH, _MESH, *likelihood.FLAGS),
  )
  paths = launch.required(data, "samples.txt,answers.jsonl").split(",")
  generative.run(
    paths,
    list(dict.fromkeys(judge.value.split(","))),
    limit=limit.value,
    output=_OUTPUT.value,
    results_path=_RESULTS.value,
  )


def entry() -> None:
  """Runs the launcher with the flags of the command line, and exits with its code."""
  launch.main(run, *_ALL)


if __name__ == "__main__":
  entry()
