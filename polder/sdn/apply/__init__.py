"""Observe, diff, act, verify. The only part of sdn that touches the host, through polder.system."""
