"""What a node and its pods use, measured from control groups, and how it is told: to the resource metrics API, as the
kubelet's summary and as Prometheus text. Nothing of it is stored.
"""
