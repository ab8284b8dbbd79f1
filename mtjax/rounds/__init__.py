"""What every generation loop shares: prompts, state, stop strings, sizes, the loop itself."""

from mtjax.rounds.run import Program
from mtjax.rounds.state import DecodeState, Finish, Request, emit

__all__ = ["DecodeState", "Finish", "Program", "Request", "emit"]
