"""The frame of HTML pages that need no other file: styles, scripts, tables and figures."""
