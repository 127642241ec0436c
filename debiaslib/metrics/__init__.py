"""Distances between sets of images, and intervals over training seeds."""
