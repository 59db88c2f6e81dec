"""What a node does when memory, disk or process numbers run short: it says so in its conditions, takes no pods that would
make it worse, frees what nobody needs, and ends pods, those first that use more than they asked for (upstream's
``kubelet/eviction``).
"""
