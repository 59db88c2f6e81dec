"""Shipped fakes, each saying where it differs from the real thing. Never imported by product code."""
