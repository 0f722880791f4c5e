"""A throw-away PostgreSQL server for the contract tests: on a Unix socket in a temporary folder, no network port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def find_postgres() -> Path | None:
    """The folder of the newest installed server's programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parent.parent.name))
    if found:
        return found[-1].parent
    program = shutil.which("postgres")
    return Path(program).parent if program else None


@contextmanager
def run_postgres() -> Generator[str]:
    """Start a server and give the URL of its `postgres` database; stop it at the end."""
    programs = find_postgres()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="hgpg"))  # short: a socket's path has a limit
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": str(folder)}
    who = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        other = pwd.getpwnam("postgres" if any(p.pw_name == "postgres" for p in pwd.getpwall()) else "nobody")
        os.chown(folder, other.pw_uid, other.pw_gid)
        who = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
    data = folder / "data"
    initdb = [
        programs / "initdb",
        "-D",
        data,
        "-A",
        "trust",
        "-U",
        "headgate",
        "-E",
        "UTF8",
        "--no-sync",
        "--no-locale",
    ]
    subprocess.run(initdb, env=environment, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)
    settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "shared_buffers=16MB"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, *settings],
            env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True, **who,
        )  # fmt: skip
    try:
        ready = [programs / "pg_isready", "-h", folder, "-U", "headgate", "-t", "20"]
        for _ in range(200):
            if subprocess.run(ready, stdout=subprocess.DEVNULL, env=environment, check=False).returncode == 0:
                break
            assert server.poll() is None, (folder / "log").read_text()
            try:
                server.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        yield f"postgresql://headgate@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)
