"""Clock, ids, references, error roots. No domain knowledge, no input or output."""
