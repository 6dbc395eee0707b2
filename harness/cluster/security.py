"""Who may connect to a lab: this machine alone, or whoever holds a certificate of the lab's authority."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.core.errors import SetupError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Keys:
    """PEM files for TLS, as Dask's Security takes them. Raises SetupError: some named and not others, or missing."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        files = {"ca": self.ca, "cert": self.cert, "key": self.key}
        for name, path in files.items():
            if any(files.values()) and (path is None or not path.is_file()):
                raise SetupError(f"--tls-{name} {path or '(not named)'}: expected a PEM file; TLS needs all three")

    def security(self) -> Any:
        """A distributed.Security: both sides show a certificate. None without keys."""
        if not self.ca:
            return None
        from distributed.security import Security

        roles = {
            f"tls_{role}_{part}": str(path)
            for role in ("client", "scheduler", "worker")
            for part, path in (("cert", self.cert), ("key", self.key))
        }
        return Security(tls_ca_file=str(self.ca), require_encryption=True, **roles)


NO_KEYS = Keys()


def check_address(address: str, keys: Keys) -> tuple[str, int]:
    """Host and port of tcp://HOST:PORT, which must be this machine's, or of tls://HOST:PORT. Raises SetupError."""
    where = urlsplit(address)
    try:
        host, port = where.hostname, where.port
    except ValueError:  # a port that is no number
        host = port = None
    if where.scheme not in ("tcp", "tls") or not host or not port:
        raise SetupError(
            f"{address}: expected tcp://HOST:PORT, where harness lab scheduler listens, or tls://HOST:PORT"
        )
    if (where.scheme == "tls") != bool(keys.ca):
        raise SetupError(f"{address}: tls:// needs --tls-ca, --tls-cert and --tls-key, and they need tls://")
    check_host(host, keys)
    return host, port


def check_host(host: str, keys: Keys) -> None:
    """Raise SetupError if others could connect without a certificate: a client can run code on the workers."""
    if not keys.ca and not is_loopback(host):
        raise SetupError(
            f"{host}: whoever connects to a lab may run code on its workers, so beyond this machine it needs TLS: name "
            "--tls-ca, --tls-cert and --tls-key (see docs/lab.md)"
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, seen from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
