"""Composition roots; the only reader of environment and configuration."""
