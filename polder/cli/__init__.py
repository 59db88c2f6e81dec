"""The commands of `polder` and what they print. No cluster logic."""
