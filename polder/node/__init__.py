"""The node agent: pods through CRI, volumes, status, attachments. Never imports the API server."""
