"""An experiment: its trainings, its tables, its notebooks and its pipeline."""
