"""The one place that builds objects and wires them: a state folder, a gateway, a node, the house of them all."""

from headgate.app.house import House, Places, require_running
from headgate.app.processes import build_spec, write_spec

__all__ = ["House", "Places", "build_spec", "require_running", "write_spec"]
