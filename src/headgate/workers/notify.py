"""Telling the service manager how things are, as sd_notify does. Source: sd_notify(3), systemd 257."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping


class ServiceManager:
    """The service manager that started this process, or nobody: then `tell` does nothing."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take NOTIFY_SOCKET out of `environ`, so that no child speaks in our name."""
        self._address = environ.pop("NOTIFY_SOCKET", "")

    def tell(self, **states: str | int) -> None:
        """Send each state as KEY=value, in one datagram. A manager that is deaf is no reason to fail."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        text = "\n".join(f"{key}={value}" for key, value in states.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as handle:
                handle.setblocking(False)
                handle.sendto(text.encode(), address)
        except OSError:
            os.write(2, b"supervisor: the service manager could not be told\n")
