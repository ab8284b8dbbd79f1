"""The launchers, and what they share: flags, prompt files and error messages of one line."""
