"""The table of methods and drafters, and how a config becomes one."""
