"""The waist: frozen types of the logical network, their invariants, and their canonical text."""
