"""Where a webhook may go. What a URL names is looked up once, and the address that was judged is the one that
is spoken to: a name that changes its mind between the two gains nothing."""

import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
URL_CHARACTERS: Final = 2_000


class NotAllowed(Exception):  # noqa: N818 - says what it means
    """An address inside the service's own network."""


def check_url(url: str, *, private: bool) -> None:
    """Raise ValueError for what can never be a webhook's address; names are looked up when it is used."""
    if len(url) > URL_CHARACTERS or not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"is no URL of at most {URL_CHARACTERS:,} printable ASCII characters")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("is not of the form https://host/path")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("holds a user, a password or a fragment, which are not sent")
    address = _literal(parts.hostname)
    if not private and (parts.hostname == "localhost" or (address is not None and not is_public(address))):
        raise ValueError(f"names {parts.hostname}, an address inside this network, which is not allowed")


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Whether anybody on the internet can be there, also behind the ways to write IPv4 in IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.teredo is not None:
            return False
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def look_up(host: str, port: int, *, private: bool) -> list[str]:
    """The host's addresses. Raises OSError where there is none, NotAllowed unless every one is public."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not private and not is_public(ipaddress.ip_address(address.partition("%")[0])):
            raise NotAllowed(f"{host} is an address inside this network")
    return addresses
