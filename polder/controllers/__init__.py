"""One reconciler a file; they talk to the API only."""
