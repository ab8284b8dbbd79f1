r"""Several drafts per position: the best acceptance of any lossless rule, and of known rules.

Makes the table of 2502.18779 from what a target and its draft model predict on texts; --text is
name=source, as for experiments/evaluate.py. docs/multi_draft_bounds.md has the table of the bundled
models, and its whole command (about 15 minutes on 2 cores), which begins:

python -m experiments.multi_draft_bounds --results=results/multi_draft_bounds.json \
  --record=pairs.npz --text="prose=file:DATA/books/valid/*.txt.gz#header=-------"

--record saves the logits: with it a second run computes other temperatures and numbers of
drafts without the models. Without --text the page is made from existing --results.
"""

from absl import flags

from mtjax.cli import flags as launch
from mtjax.cli.running import progress, results_file, seldom

_TEXT = flags.DEFINE_multi_string(
  "text", [], "Text to predict, as name=source. Repeat the flag for several texts."
)
_TARGET = flags.DEFINE_string(
  "target", "target", "Target model: a bundled one, a folder or a Hugging Face id."
)
_DRAFT = flags.DEFINE_string(
  "draft", "draft", "Draft model, which must have the target's vocabulary."
)
_POSITIONS = flags.DEFINE_integer("positions", 250, "Number of positions to record per text.", 2)
_CONTEXT = flags.DEFINE_integer(
  "context", 256, "Number of tokens that a position is predicted from.", 1
)
_RECORD = flags.DEFINE_string(
  "record", None, "File (.npz) to save the recorded logits to; it is read if it exists."
)
_TEMPERATURES = flags.DEFINE_list(
  "temperatures", ["0.2", "0.4", "0.6", "0.8", "1.0"], "Temperatures to apply to both models."
)
_DRAFTS = flags.DEFINE_list(
  "drafts", ["1", "2", "3", "4", "8"], "Numbers of drafts per position to compare."
)
_SAMPLES = flags.DEFINE_integer(
  "samples", 16, "Number of samples of refused drafts where the mean over drafts has no formula.", 2
)
_RESULTS = flags.DEFINE_string(
  "results", None, "JSON file of the results: written with --text, otherwise read.", required=True
)
_PAGE = flags.DEFINE_string("page", None, "Markdown file to make from the results.")
_PICTURE = flags.DEFINE_string("picture", None, "Picture (png, svg) to make from the results.")
_MEASURED = (_TARGET, _DRAFT, _POSITIONS, _CONTEXT, _RECORD, _TEMPERATURES, _DRAFTS, _SAMPLES)


def measure() -> None:
  temperatures = [float(value) for value in launch.distinct(_TEMPERATURES)]
  drafts = [int(value) for value in launch.distinct(_DRAFTS)]
  from mtjax.evaluate.multi_draft import bounds as multi_draft_bounds
  from mtjax.evaluate.multi_draft.recorded_pairs import recorded
  from mtjax.report.results import header

  multi_draft_bounds.check(temperatures, drafts)

  def record(found):
    share = dict.fromkeys(("bound", "acceptance", "gap"), "share of positions")
    head = header("multi_draft_bounds", units=share)
    del head["complete"]  # the file's: it knows when the run has ended
    return {**head, **found, "versions": found["versions"] | head["versions"]}

  tell = seldom(progress)
  with results_file(_RESULTS.value, dump=multi_draft_bounds.as_json) as write:
    pairs = recorded(
      _RECORD.value,
      _TARGET.value,
      _DRAFT.value,
      _TEXT.value,
      positions=_POSITIONS.value,
      context=_CONTEXT.value,
      progress=tell,
    )
    multi_draft_bounds.measure(
      pairs,
      temperatures=temperatures,
      drafts=drafts,
      samples=_SAMPLES.value,
      progress=tell,
      finished=lambda found: write(record(found)),
    )


def run() -> None:
  launch.check_output(_RECORD, _RESULTS, _PAGE, _PICTURE, inputs=[_TEXT])
  launch.check_picture(_PICTURE)
  if _TEXT.value:
    measure()
  else:
    launch.check_unused("without --text", *_MEASURED)
  # Imported here: a mistake in the command is answered at once.
  from mtjax.report.multi_draft import page as multi_draft_page
  from mtjax.report.multi_draft import picture as multi_draft_picture
  from mtjax.report.multi_draft.tables import Bounds

  results = multi_draft_page.read(_RESULTS.value)
  if _PAGE.value is not None:
    with open(_PAGE.value, "w", encoding="utf-8") as file:
      file.write(multi_draft_page.page(results))
  if _PICTURE.value is not None:
    multi_draft_picture.figure(Bounds(results["rows"])).savefig(_PICTURE.value, dpi=110)


if __name__ == "__main__":
  launch.main(run)
