"""Flags that make a launcher one of several processes."""

import contextlib
import dataclasses
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from absl import flags

from mtjax.cli.flags import check_unused
from mtjax.cli.hosts.once import silent

if TYPE_CHECKING:
  from jax.sharding import Mesh


@dataclasses.dataclass(frozen=True)
class HostFlags:
  """The flags --distributed, --heartbeat_seconds and --wait_seconds of one launcher."""

  distributed: flags.FlagHolder
  heartbeat: flags.FlagHolder
  wait: flags.FlagHolder

  @classmethod
  def define(cls, values: flags.FlagValues) -> "HostFlags":
    """Defines the flags in `values`."""
    return cls(
      flags.DEFINE_string(
        "distributed",
        None,
        "Be one of several processes: auto (what JAX finds: SLURM, Open MPI, Kubernetes, TPU "
        "hosts), slurm, ompi, mpi4py, or HOST:PORT,COUNT,INDEX: the address of process 0, the "
        "number of processes, and which of them this is. docs/guides/multi_host.md",
        flag_values=values,
      ),
      flags.DEFINE_integer(
        "heartbeat_seconds",
        None,
        "With --distributed: a process that is silent for so long is lost, and ends the job. "
        "Default: 30.",
        lower_bound=1,
        flag_values=values,
      ),
      flags.DEFINE_integer(
        "wait_seconds",
        None,
        "With --distributed: the longest time until all processes have started. Default: 120.",
        lower_bound=1,
        flag_values=values,
      ),
    )

  def meet(self) -> None:
    """Joins the job, if there is one. Raises as `mtjax.hosts.meet` does."""
    if self.distributed.value is None:
      self._check_unused()
      return
    from mtjax import hosts

    place = hosts.HostPlace.parse(self.distributed.value)
    limits = dict(heartbeat=self.heartbeat.value, wait=self.wait.value)
    hosts.meet(place, **{name: value for name, value in limits.items() if value is not None})

  @contextlib.contextmanager
  def joined(self, config: Mapping[str, Any] | None, *values: flags.FlagValues) -> Generator[None]:
    """Joins the job, if there is one; within the block only process 0 prints and writes.

    An error in the block ends the process (`mtjax.hosts.ends_together`). Raises ValueError if the
    flags in `values`, the fields of `config`, or files that `config` names are not those of process
    0.
    """
    self.meet()
    if self.distributed.value is None:
      yield
      return
    from mtjax import hosts

    own = {holder.name for holder in (self.distributed, self.heartbeat, self.wait)}
    said = {
      name: each[name].value for each in values for name in each if name not in {*own, "config"}
    }
    quiet = contextlib.nullcontext() if hosts.is_first() else silent()
    with hosts.ends_together(), quiet:
      hosts.check_equal("command", said)
      if config is not None:
        hosts.check_equal("config", config)
        hosts.check_same_named_files("file of the config", config)
      yield

  def mesh(self, setting: str, flag: str) -> "Mesh | str":
    """Returns the mesh of all devices of the job that `setting` names; without a job, `setting`.

    `flag` is the name of the setting. Raises ValueError, in a job, for no mesh, and for one
    without some of the devices.
    """
    if self.distributed.value is None:
      return setting
    import jax

    from mtjax import hosts, sharding

    total = len(jax.devices())
    mesh = sharding.parse_mesh(setting, devices=jax.devices())
    if mesh is None:
      raise ValueError(
        f"with --distributed, say how to use the {total} devices: {flag}=data:{total}"
      )
    hosts.check_whole_mesh(mesh)
    return mesh

  def check_cannot(self, what: str) -> None:
    """Raises ValueError for what runs in one process alone, if there is a job."""
    if self.distributed.value is not None:
      raise ValueError(f"{what} runs in one process: leave --distributed out")
    self._check_unused()

  @contextlib.contextmanager
  def together(self, what: str) -> Generator[None]:
    """Ends the block in all processes of a job if it fails in one (`mtjax.hosts.together`)."""
    if self.distributed.value is None:
      yield
      return
    from mtjax import hosts

    with hosts.together(what):
      yield

  def _check_unused(self) -> None:
    check_unused("without --distributed", self.heartbeat, self.wait)
