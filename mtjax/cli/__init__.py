"""What launchers share: flags, files of prompts, errors of one line."""
