"""Pages: a report of an experiment, and notebooks as HTML."""
