"""Where replicas live: processes of this machine, or a fake for tests. One protocol for all."""
