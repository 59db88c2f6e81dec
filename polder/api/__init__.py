"""Typed API kinds by group, the table of kinds, defaulting, validation and schemas. Pure; no component logic."""
