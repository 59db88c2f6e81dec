"""The door to the kernel's network: netlink, namespaces, nftables, sysctls, sockets. Knows no item and no object.

Everything here blocks and is called from worker threads. What is here takes plain values; what they mean is decided in
``sdn``.
"""
