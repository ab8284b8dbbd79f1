"""The table of methods and drafters, and the functions that make them from configs."""
