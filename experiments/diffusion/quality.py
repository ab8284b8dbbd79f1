"""Measures how good sampled texts are when a pass decides more than one token.

    python -m experiments.diffusion.quality --text=books=SOURCE --results=FILE.json

Methods that sample at temperature 1 write one text for each prompt, and a causal judge reads them.
One token per pass is the model's own distribution, and the others are compared with it prompt by
prompt, because differences of one hundredth need hundreds of texts. The figures do not depend on
what else the machine does.
"""

from absl import flags
from rich.console import Console

from mtjax.bench.diffusion.cases import bidirectional_cases
from mtjax.bench.diffusion.methods import CaseRunner, DenoisingCase
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.evaluate.denoising.compared_quality import compare_quality
from mtjax.evaluate.generative import TextQuality, judge_texts, load_judge
from mtjax.evaluate.prompt_windows import prompt_windows
from mtjax.evaluate.texts import named_documents
from mtjax.pretrained import for_decoding, load_pretrained
from mtjax.report import results
from mtjax.report.cells import Cells

_MODEL = flags.DEFINE_string("model", "masked", "Masked model: a bundled one, a folder, a hub id.")
_JUDGE = flags.DEFINE_string("judge", "target", "Causal model that judges the texts.")
_TEXT = flags.DEFINE_multi_string("text", [], "name=source of texts that prompts are cut from.")
_PROMPTS = flags.DEFINE_integer("prompts", 384, "Number of prompts per text.", lower_bound=2)
_PROMPT = flags.DEFINE_integer("prompt_tokens", 32, "Tokens of a prompt.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 64, "Tokens to generate.", lower_bound=1)
_BLOCK = flags.DEFINE_integer("block_length", 64, "Positions of a block.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 8, "Texts that are written together.", lower_bound=1)
_CASES = flags.DEFINE_multi_string(
  "case",
  ["mdlm, 4 per pass", "halton, 3 per pass", "halton, 4 per pass", "dilated"],
  "Name of a method as in the table of experiments.diffusion.speed; may be repeated.",
)
_TOLERANCE = flags.DEFINE_float("tolerance", 0.01, "What 'as good' allows, as a share.")
_RESULTS = flags.DEFINE_string("results", None, "JSON file to write the figures to.")


def cases() -> tuple[DenoisingCase, list[DenoisingCase]]:
  """Returns the reference, which decides one token per pass, and the methods to compare."""
  by_name = {case.name: case for case in bidirectional_cases(_LENGTH.value, _BLOCK.value)}
  sampled = [name for name, case in by_name.items() if case.temperature and case.reference != name]
  if unknown := [name for name in _CASES.value if name not in sampled]:
    raise ValueError(f"--case: {unknown[0]!r} is none of: {'; '.join(sampled)}")
  named = [by_name[name] for name in _CASES.value]
  references = {case.reference for case in named}
  return by_name[references.pop()], named


def line_of(row: dict) -> tuple[str, ...]:
  figures = (row["case"], f"{row['tokens_per_forward']:.2f}", f"{row['bits_per_byte']:.3f}")
  if row["bits_change"] is None:
    return (*figures, "-", f"{row['entropy']:.3f}", "-", "-")
  bits = f"{100 * row['bits_change']:+.2f}% ± {100 * row['bits_error']:.2f}%"
  entropy = f"{100 * row['entropy_change']:+.2f}% ± {100 * row['entropy_error']:.2f}%"
  return (*figures, bits, f"{row['entropy']:.3f}", entropy, "yes" if row["as_good"] else "no")


def run() -> None:
  launch.check_output(_RESULTS)
  reference, others = cases()
  if not _TEXT.value:
    raise ValueError("give at least one --text=name=source to cut prompts from")
  judge, text = load_judge(_JUDGE.value), for_decoding(load_pretrained(_MODEL.value), "stored")
  texts = named_documents(_TEXT.value, text.tokenizer)
  prompts = prompt_windows(texts, count=_PROMPTS.value, length=_PROMPT.value)
  write, expected, rows = CaseRunner(text), [], []
  for case in (reference, *others):
    done = []
    for first in range(0, len(prompts), _BATCH.value):
      progress(f"{case.name}: text {first} of {len(prompts)}")
      done.append(write(case, prompts[first : first + _BATCH.value], seed=first))
    judged = judge_texts(
      judge,
      [text.tokenizer.decode(tokens) for one in done for tokens in one.tokens],
      [text.tokenizer.decode(prompt) for prompt in prompts],
    )
    expected = expected or judged
    forwards, tokens = (sum(one.counters[name] for one in done) for name in ("forwards", "tokens"))
    quality = TextQuality.of(judged)
    row = dict(case=case.name, texts=len(judged), tokens_per_forward=tokens / forwards)
    row |= dict(bits_per_byte=quality.bits_per_byte, entropy=quality.entropy)
    row |= dict.fromkeys(("bits_change", "bits_error", "entropy_change", "entropy_error"))
    if case is not reference:
      found = compare_quality(judged, expected)
      row |= dict(bits_change=found.bits, bits_error=found.bits_error)
      row |= dict(entropy_change=found.entropy, entropy_error=found.entropy_error)
      row |= dict(as_good=found.within(_TOLERANCE.value))
    rows.append(row)
    publish(rows, complete=len(rows) == len(others) + 1)


def publish(rows: list[dict], complete: bool) -> None:
  header = ("method", "tokens per forward", "judge's bits per byte", "change", "entropy")
  title = f"{rows[0]['texts']} texts of {_LENGTH.value} tokens"
  table = Cells(title, (*header, "change", "as good"), [line_of(row) for row in rows])
  if complete:
    Console(width=140).print(table.for_terminal())
  units = dict(bits_per_byte="bits", entropy="bits per token", tokens_per_forward="tokens")
  results.write(
    _RESULTS.value,
    "denoising_quality",
    tables=[table],
    rows=rows,
    settings=launch.settings(__name__),
    units=units,
    complete=complete,
  )


if __name__ == "__main__":
  launch.main(run)
