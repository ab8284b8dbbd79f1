"""Finds the best draft tree of a machine, says why, and draws it: python -m experiments.tune_tree

Measures on this machine how often drafts are accepted and how long rounds take, or reads it from
the store of plans; plans; decodes with the best of each drafter and kind; and prints the table.

python -m experiments.tune_tree --target=smollm2 --drafters=lookup,suffix --picture=tree.png

--mesh, --weights, --temperature, --top_p and --verifier are the fields of the same names of a
config of decoding, and --texts is plan.texts: the plan is of what is decoded so.

With --hardware nothing is timed: the plan is that of a roofline, for models by name, folder or
published size. Acceptance is measured here where both models are at hand, and is otherwise given,
as the file of a profile or as rates by rank:

python -m experiments.tune_tree --hardware=v5e-8 --target=8B --draft=1B --drafters=draft \
  --acceptance=draft=0.7,0.12,0.05,0.02 --batch=1,16,64 --picture=tree.png,tree.svg

--picture takes several files, by their suffixes (png, svg, pdf); with several batch sizes each has
files of its own, as tree-batch16.png.
"""

import functools
import pathlib

from absl import flags

from mtjax.cli import flags as launch
from mtjax.cli.running import progress

_TARGET = flags.DEFINE_string(
  "target", "target", "Target model: by name, a folder, or with --hardware a size such as 7B."
)
_DRAFT = flags.DEFINE_string("draft", "draft", "Draft model, named in the same way.")
_DRAFTERS = flags.DEFINE_list(
  "drafters", ["draft", "draft_tree", "lookup"], "Drafters that compete with plain decoding."
)
_HARDWARE = flags.DEFINE_string(
  "hardware", None, "Machine that is not here, such as h100, v5e-8 or 8xh100. Default: this one."
)
_BATCH = flags.DEFINE_list("batch", ["1"], "Numbers of rows to plan for.")
_CONTEXT = flags.DEFINE_integer("context", 256, "Number of tokens of context per row.", 1)
_ACCEPTANCE = flags.DEFINE_multi_string(
  "acceptance", [], "With --hardware: FILE of a profile, NAME=FILE or NAME=RATE,RATE. Repeatable."
)
_DOMAIN = flags.DEFINE_string("domain", "all", "With --hardware: domain of the profiles to use.")
_DTYPE = flags.DEFINE_enum(
  "dtype", "bfloat16", ["bfloat16", "float32"], "With --hardware: type of weights and arithmetic."
)
_ENTRIES = flags.DEFINE_integer(
  "max_entries", 64, "With --hardware: largest number of entries per row in the target's pass.", 2
)
_SECONDS = flags.DEFINE_float("seconds", 60.0, "Time to measure profiles for, at most.", 1.0)
_TOKENS = flags.DEFINE_integer("tokens", 96, "New tokens per row to measure speeds with.", 2)
_REPEATS = flags.DEFINE_integer(
  "repeats", 3, "Number of passes that measure speeds; 0: predict them only.", 0
)
_MESH = flags.DEFINE_string(
  "mesh",
  "",
  "Devices to decode on, such as data:2,model:4: rows are split over data, weights and heads over "
  "model, the slots of caches over sequence. Default: one.",
)
_WEIGHTS = flags.DEFINE_string(
  "weights", "stored", "Format of the weights of target and draft model: stored, float32 or int8."
)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "Temperature of sampling; 0: greedy.", 0.0)
_TOP_P = flags.DEFINE_float("top_p", 1.0, "Mass of the tokens that are sampled from.", 0.0, 1.0)
_VERIFIER = flags.DEFINE_string(
  "verifier", None, "Rule that accepts drafts, such as rrs_without. Default: the drafter's."
)
_TEXTS = flags.DEFINE_list(
  "texts", [], "Files to calibrate with, by domain: code=FILE,prose=FILE. Default: bundled texts."
)
_MEASURE = flags.DEFINE_enum(
  "measure", "once", ["once", "again"], "again: measure anew, and replace the stored profiles."
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file of the plan; several batches: one each.")
_PICTURE = flags.DEFINE_list("picture", [], "Pictures to draw.")
_RESULTS = flags.DEFINE_string("results", None, "JSON file of the tables and all figures.")
_THERE = (_ACCEPTANCE, _DOMAIN, _DTYPE, _ENTRIES)
_DECODING = (_MESH, _WEIGHTS, _TEMPERATURE, _TOP_P, _VERIFIER, _TEXTS, _MEASURE)
_HERE = (_SECONDS, _TOKENS, _REPEATS, *_DECODING)


def run() -> None:
  launch.check_output(_OUTPUT, _RESULTS, inputs=[_ACCEPTANCE, _TEXTS])
  if _HARDWARE.value is None:
    launch.check_unused("without --hardware", *_THERE)
  else:
    launch.check_unused("with --hardware", *_HERE)
  # Imported here: --help and mistakes in flags need not wait for JAX.
  from mtjax.cli.tuning import elsewhere, here, writing

  files = [pathlib.Path(name) for name in _PICTURE.value]
  writing.check(files, _OUTPUT.value)
  common = dict(
    batches=writing.batches(_BATCH.value),
    context=_CONTEXT.value,
    progress=progress,
    check=functools.partial(writing.check_plans, _OUTPUT.value),
  )
  names = _TARGET.value, _DRAFT.value
  if _HARDWARE.value is None:
    decoding = here.PlannedDecoding(
      **{flag.name: flag.value for flag in _DECODING if flag is not _TEXTS},
      texts=tuple(_TEXTS.value),
    )
    plans = here.tuned_here(
      *names, launch.distinct(_DRAFTERS), seconds=_SECONDS.value, max_tokens=_TOKENS.value,
      repeats=_REPEATS.value, decoding=decoding, **common,
    )  # fmt: skip
  else:
    given = elsewhere.read_acceptance(_ACCEPTANCE.value, _DOMAIN.value)
    # With acceptance that is given, those drafters compete, and others if they are named.
    drafters = [] if given and not _DRAFTERS.present else launch.distinct(_DRAFTERS)
    plans = elsewhere.tuned_elsewhere(
      _HARDWARE.value, *names, drafters, given, max_entries=_ENTRIES.value, dtype=_DTYPE.value,
      domain=_DOMAIN.value, **common,
    )  # fmt: skip
  writing.show(plans)
  writing.save(plans, files, _OUTPUT.value, _RESULTS.value, launch.settings(__name__))


if __name__ == "__main__":
  launch.main(run)
