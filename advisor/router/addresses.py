"""Where upstream requests may go: what the configuration names, and never a link-local address.

Cloud machines hand out credentials on link-local addresses (169.254.169.254 and its kin). The
address is checked when the configuration is read, and again each time a name is resolved, since a
name may point anywhere later.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog"})
METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(text) for text in ("100.100.100.200", "168.63.129.16", "fd00:ec2::254")
)
"""Metadata services outside the link-local ranges: Alibaba Cloud, Azure, and AWS on IPv6."""

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def is_refused(address: str) -> bool:
    """Whether an IP address is link-local, multicast, unspecified or a metadata service."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    ip = mapped or ip
    return ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in METADATA_ADDRESSES


def is_loopback(host: str) -> bool:
    """Whether a server bound to this address is reached from this machine only."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_url(url: str) -> str:
    """A base URL without its last slash.

    Raises:
        ValueError: not http(s), no host, credentials, a query, or a refused address. The message
            leaves the URL out where it holds a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("not a URL") from None
    if parts.username or parts.password:
        raise ValueError("credentials do not belong into a URL: name a variable in api_key_env")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("a URL such as http://127.0.0.1:8000/v1 is expected")
    if parts.query or parts.fragment:
        raise ValueError("a base URL has neither a query nor a fragment")
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        raise ValueError("the host is no name that a resolver knows") from None
    if _names_refused(parts.hostname):
        raise ValueError("link-local and metadata addresses are refused")
    return url.rstrip("/")


def _names_refused(host: str) -> bool:
    if host.rstrip(".").lower() in METADATA_NAMES:
        return True
    try:
        return is_refused(host)
    except ValueError:
        pass
    try:
        # 2852039166 and 0xa9fea9fe are 169.254.169.254 to the system's resolver.
        return is_refused(socket.inet_ntoa(socket.inet_aton(host)))
    except OSError:
        return False
