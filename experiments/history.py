"""Draws what a run did, by round: python -m experiments.history --run=run.json --page=run.html

--run is what mtjax-decode or mtjax-infill wrote with --history --output. --page is one HTML page of
all rounds, of all methods that were compared unless --method chooses one; mtjax-decode --html and
mtjax-infill --html write it at once. --picture is the tree of one --round of one --row (png, pdf,
svg; the extra `viz`).
"""

from absl import flags

from mtjax.cli import flags as launch

_RUN = flags.DEFINE_string("run", None, "JSON file of a run with its history.")
_PAGE = flags.DEFINE_string("page", None, "HTML file to write: text, time and trees of all rounds.")
_PICTURE = flags.DEFINE_string("picture", None, "Picture to write: the tree of one round.")
_ROUND = flags.DEFINE_integer(
  "round", None, "Round of --picture; 0 is the prefill; default: the one that accepted most.", 0
)
_ROW = flags.DEFINE_integer("row", 0, "Row of --picture, from 0.", lower_bound=0)
_METHOD = flags.DEFINE_string("method", None, "Method of a run with --compare.")
_PROMPT = flags.DEFINE_integer("prompt", 0, "Its prompt, from 0.", lower_bound=0)


def run() -> None:
  path = launch.required(_RUN, "run.json")
  if _PAGE.value is None and _PICTURE.value is None:
    raise ValueError("nothing to write: give --page=FILE.html or --picture=FILE.png")
  if _PICTURE.value is None:
    launch.check_unused("without --picture", _ROUND, _ROW)
  launch.check_output(_PAGE, _PICTURE, inputs=[_RUN])
  launch.check_picture(_PICTURE)
  # Imported here: a mistake in the command is answered at once.
  from mtjax.report.history import picture
  from mtjax.report.history.page import page, page_of_file
  from mtjax.report.history.run_json import read_run

  if _PAGE.value is not None:
    if _METHOD.value is None and not _PROMPT.present:
      made = page_of_file(path)
    else:
      made = page([read_run(path, method=_METHOD.value, prompt=_PROMPT.value)])
    made.save(_PAGE.value)
  if _PICTURE.value is not None:
    found = read_run(path, method=_METHOD.value, prompt=_PROMPT.value)
    number = picture.fullest_round(found, _ROW.value) if _ROUND.value is None else _ROUND.value
    picture.round_picture(found, number, _ROW.value).savefig(_PICTURE.value, dpi=120)


if __name__ == "__main__":
  launch.main(run)
