"""The resolver of all tenants of a node: names of each tenant's services, and the rest by way of upstream servers.

It runs in a process of its own without rights, for its packets come from pods: sockets are made by the agent inside the tenants'
routers and handed over, and so is what the names are made of. Here belong the wire format, the zones, forwarding, and both ends
of the agent's link to the process; the address and the rules by which packets reach the sockets belong to ``sdn``.
"""
