"""A chat with history on a command line: mtjax-decode --chat."""
