"""Profiles and plans of this user, kept between runs."""

import errno
import hashlib
import itertools
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mtjax import hosts
from mtjax.tuning.documents import DamagedDocument
from mtjax.tuning.plan import SpeculationPlan
from mtjax.tuning.plan_file import load_plan, save_plan
from mtjax.tuning.profiles import AcceptanceProfile, LatencyProfile

VARIABLE = "MTJAX_PLANS"  # of the environment: the folder
T = TypeVar("T")

Say = Callable[[str], None]


def to_stderr(message: str) -> None:
  """Writes a line for a user who waits, in process 0 alone."""
  hosts.say(f"mtjax: {message}")


def default_folder() -> Path:
  """Returns the folder of $MTJAX_PLANS, else mtjax/plans in $XDG_CACHE_HOME, else in ~/.cache."""
  if named := os.environ.get(VARIABLE):
    return Path(named)
  cache = os.environ.get("XDG_CACHE_HOME")
  return (Path(cache) if cache else Path.home() / ".cache") / "mtjax" / "plans"


class PlanStore:
  """A folder of JSON files: profiles and plans, each of what its name and its `of` say.

  A file is written whole or not at all, and the last of several writers wins. What cannot be read,
  or belongs to something else, is named and set aside under another name, never overwritten and
  never deleted; then it is measured anew. Where the folder cannot be written, that is said and
  nothing is kept.
  """

  def __init__(self, folder: str | Path | None = None, *, say: Say = to_stderr):
    self.folder = Path(folder) if folder else default_folder()
    self.say = say

  def path(self, kind: str, of: Mapping[str, str]) -> Path:
    """Returns the file of a profile or plan: its model and drafter, and a hash of all of `of`."""
    words = [kind, of["target"], of["drafter"], of["device"]]
    name = re.sub(r"[^a-z0-9.]+", "-", " ".join(words).lower()).strip("-")[:100]
    digest = hashlib.sha256(json.dumps(dict(of), sort_keys=True).encode()).hexdigest()[:12]
    return self.folder / f"{name}-{digest}.json"

  def acceptance(self, of: Mapping[str, str]) -> AcceptanceProfile | None:
    """Returns the profile of `of`, or None if there is none that can be used."""
    return self._load("acceptance", of, AcceptanceProfile.load)

  def latency(self, of: Mapping[str, str]) -> LatencyProfile | None:
    """Returns the profile of `of`, or None if there is none that can be used."""
    return self._load("latency", of, LatencyProfile.load)

  def plan(self, of: Mapping[str, str]) -> SpeculationPlan | None:
    """Returns the plan of `of`, or None if there is none that can be used."""
    return self._load("plan", of, load_plan)

  def keep(
    self, of: Mapping[str, str], what: AcceptanceProfile | LatencyProfile | SpeculationPlan
  ) -> Path | None:
    """Writes a profile or plan; returns its file, or None if that was not possible."""
    if isinstance(what, SpeculationPlan):
      kind, write = "plan", lambda place: save_plan(place, what, of)
    else:
      kind, write = "acceptance" if isinstance(what, AcceptanceProfile) else "latency", what.save
    path = self.path(kind, of)
    try:
      try:
        write(path)
      except ValueError as error:  # a file that came since this program looked
        self._set_aside(path, error, lambda place: _read(kind, place, of))
        write(path)
    except ValueError as error:  # it could not be set aside, or the plan itself is impossible
      self.say(f"{error}. Nothing was written, so this is measured again next time")
      return None
    except OSError as error:
      self.say(
        f"{str(self.folder)!r} cannot be written ({error.strerror}), so this is measured again "
        f"next time: set {VARIABLE} to a folder of yours"
      )
      return None
    return path

  def _load(self, kind: str, of: Mapping[str, str], load: Callable[..., T]) -> T | None:
    path = self.path(kind, of)
    try:
      return load(path, **of)
    except FileNotFoundError:
      return None
    except ValueError as error:  # damaged, of another version, or of something else
      return self._set_aside(path, error, lambda place: load(place, **of))
    except OSError as error:
      self.say(f"{str(path)!r} cannot be read ({error.strerror}): it is measured anew")
      return None

  def _set_aside(self, path: Path, error: ValueError, read: Callable[[Path], T]) -> T | None:
    """Gives a file another name, unless another program has put a good one there by now.

    read: returns what a file holds. The result for a good file is returned, and that file is there
    when this ends; None where there is none, or the file was set aside.
    """
    kind = "damaged" if isinstance(error, DamagedDocument) else "foreign"
    text = str(error).split(". It is left as it is")[0].split(". Measure one of your own")[0]
    own = path.with_name(f".{path.name}.{uuid.uuid4().hex}.aside")
    try:
      if (found := _good(path, read)) is not None:
        return found
      # Another program may have replaced the file since, so what was renamed is read once more.
      os.rename(path, own)
      if (found := _good(own, read)) is not None:
        try:
          _renamed(own, path)
        except FileExistsError:  # of two good files the last one wins
          os.unlink(own)
        return found
      for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.{kind}-{number}")
        try:
          _renamed(own, aside)
        except FileExistsError:
          continue
        except OSError:  # it keeps the name that it has
          aside = own
        self.say(f"{text}. It is kept as {aside.name!r}, and measured anew")
        return None
    except FileNotFoundError:  # another program has set it aside
      return None
    except OSError as refused:
      self.say(f"{text}. It cannot be set aside ({refused.strerror}), and is not used")
      return None


def _good(path: Path, read: Callable[[Path], T]) -> T | None:
  """Returns what a file holds; None for one that cannot be used."""
  try:
    return read(path)
  except FileNotFoundError:
    raise
  except (ValueError, OSError):
    return None


def _read(kind: str, path: Path, of: Mapping[str, str]) -> Any:
  loads = dict(acceptance=AcceptanceProfile.load, latency=LatencyProfile.load, plan=load_plan)
  return loads[kind](path, **of)


def _renamed(own: Path, name: Path) -> None:
  """Renames a file that no other program knows to a name that nobody has.

  Raises FileExistsError for a name that is taken.
  """
  try:
    # Another program may take the same name at the same time: a link fails then.
    os.link(own, name)
  except OSError as refused:
    if refused.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
      raise
    # There are no hard links here: the name is taken first, by an empty file.
    os.close(os.open(name, os.O_CREAT | os.O_EXCL))
    try:
      os.replace(own, name)
    except OSError:
      os.unlink(name)
      raise
    return
  os.unlink(own)
