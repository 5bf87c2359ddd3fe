"""Trained models as folders: those that ship with the package, and your own."""
