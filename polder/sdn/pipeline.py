"""Composes compile, render and apply."""
