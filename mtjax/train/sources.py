"""The batches of a run, and the texts that it is scored on."""

from collections.abc import Callable, Mapping, Sequence

from jax.sharding import Mesh

from mtjax.data.pipeline import TrainBatches
from mtjax.data.tokenizers import Tokenizer
from mtjax.evaluate import perplexity
from mtjax.evaluate.texts import Documents, named_documents
from mtjax.models import Params
from mtjax.pretrained import tokenizer_of
from mtjax.sharding import padded_rows
from mtjax.train.config import RunConfig

_SCORED_ROWS = 8  # at least so many are scored together: as many as divide over the data axis


def make_batches(settings: RunConfig, rows: Sequence[int] | None = None) -> TrainBatches:
  """Returns batches of the mixture of settings.data["sources"], or some rows of each.

  Raises ValueError if there is no source, and if the tokenizer has more tokens than the model.
  """
  data = settings.data
  if not data["sources"]:
    raise ValueError(
      "data.sources is empty: give texts, as --config.data.sources=\"('file:books/*.txt',)\""
    )
  return TrainBatches(
    data["sources"],
    _tokenizer(settings),
    batch=settings.batch,
    length=settings.length,
    seed=settings.seed,
    rows=rows,
    cache_dir=data["cache_dir"],
  )


def evaluation_texts(settings: RunConfig) -> dict[str, Documents]:
  """Returns the texts that a run is scored on, by name.

  settings.data["eval_sources"] are "name=source" (see mtjax.data.sources.Source); about the first
  eval_bytes bytes of each are kept. Raises ValueError or FileNotFoundError for texts that cannot
  be read.
  """
  data = settings.data
  if not data["eval_sources"]:
    return {}
  return named_documents(
    data["eval_sources"],
    _tokenizer(settings),
    cache_dir=data["cache_dir"],
    limit=data["eval_bytes"],
  )


def make_evaluation(
  settings: RunConfig, scored: Mapping[str, Documents], mesh: Mesh | None = None
) -> Callable[[Params], dict[str, float]] | None:
  """Returns a function from parameters to bits per byte by name of text, or None without texts.

  mesh: the devices that the parameters are split over, whose data axis splits the rows that are
  scored together; None: the parameters are on one device.
  """
  if not scored:
    return None
  tokenizer = _tokenizer(settings)

  def evaluate(params: Params) -> dict[str, float]:
    return {
      name: perplexity.score(
        settings.model,
        params,
        documents,
        start=tokenizer.bos_id,
        length=settings.length,
        context=settings.length // 2,
        batch=padded_rows(_SCORED_ROWS, mesh),
        mesh=mesh,
      ).bits_per_byte
      for name, documents in scored.items()
    }

  return evaluate


def _tokenizer(settings: RunConfig) -> Tokenizer:
  tokenizer = tokenizer_of(settings.data["tokenizer"])
  size = settings.model.config.vocab_size
  if tokenizer.vocab_size > size:
    raise ValueError(
      f"the tokenizer {settings.data['tokenizer']!r} has {tokenizer.vocab_size} tokens, "
      f"but model.vocab_size is only {size}"
    )
  return tokenizer
