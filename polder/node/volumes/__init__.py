"""Volumes of pods: made below the node's state directory before the pod, removed after it."""
