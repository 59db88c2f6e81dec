"""The Linux kernel as backend: namespaces, bridges, VXLAN, nftables."""
