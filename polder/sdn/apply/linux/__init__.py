"""Reads and writes the Linux kernel for render/linux."""
