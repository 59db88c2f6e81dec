"""Pure: topology and node facts -> desired state of one backend. Backends do not know each other."""
