"""Training objectives, one idea per file: what is descended, by name and in formula."""
