"""The only door to the host: netlink, namespaces, nftables, mounts, processes, containerd, cryptography. Each third-party
system library appears in one file here. No policy: callers decide, this package does."""
