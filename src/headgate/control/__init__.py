"""Load -> decide -> apply: the node's reconcile loop, its link to the gateways, and the fleets it commands."""
