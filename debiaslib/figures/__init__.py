"""Saved tables in, figures out. Imports no torch."""
