"""The CNI protocol: requests, results, errors, the unix socket. What an ADD means is the node agent's."""
