"""The embedded API server: HTTP, identity, storage of objects, discovery. No controllers."""
