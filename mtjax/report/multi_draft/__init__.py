"""The page, tables and picture of the bounds for several drafts."""
