"""Keyed queue, back-off and the reconcile(key) runner that every controller uses."""
