"""What a training run records and shows: files of numbers, and a progress bar."""
