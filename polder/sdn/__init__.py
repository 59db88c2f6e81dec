"""The network: API objects -> topology -> desired kernel state -> kernel. pipeline.py composes the steps."""
