"""Flags that make a launcher one of several processes."""

import dataclasses

from absl import flags


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
        30,
        "With --distributed: a process that is silent for so long is lost, and ends the job.",
        lower_bound=1,
        flag_values=values,
      ),
      flags.DEFINE_integer(
        "wait_seconds",
        120,
        "With --distributed: the longest time until all processes have started.",
        lower_bound=1,
        flag_values=values,
      ),
    )

  def meet(self) -> None:
    """Joins the job, if there is one. Raises as `mtjax.hosts.meet` does."""
    from mtjax.cli.flags import check_unused

    if self.distributed.value is None:
      check_unused("without --distributed", self.heartbeat, self.wait)
      return
    from mtjax import hosts

    place = hosts.HostPlace.parse(self.distributed.value)
    hosts.meet(place, heartbeat=self.heartbeat.value, wait=self.wait.value)
