"""Pure: API snapshot -> topology; a file per concern."""
