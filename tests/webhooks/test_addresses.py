"""Where a webhook may not go: nowhere inside, however the address is written."""

import ipaddress

import pytest

from app.webhooks.addresses import check_url, is_public
from app.webhooks.posting import post
from tests.support.receiver import receiving

INSIDE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # where clouds keep their secrets
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fd00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:53aa:64c:0:7fff:80ff:fffe",
]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::808:808"]
)
def test_addresses_outside_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://[::1]:8000/", "https://localhost/", "http://10.0.0.1/"]
)
def test_such_an_address_is_refused_when_it_is_written_down(url: str) -> None:
    with pytest.raises(ValueError, match="inside this network"):
        check_url(url, private=False)
    check_url(url, private=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost"])
def test_and_when_it_is_spoken_to_however_it_is_written(host: str) -> None:
    """The receiver is really there: nothing but the guard keeps the message from it."""
    with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", host)
        outcome = post(url, {}, b"{}", seconds=5, private=False)
        assert outcome.status is None
        assert "inside this network" in (outcome.error or "")
        assert receiver.received == []
        assert post(url, {}, b"{}", seconds=5, private=True).delivered
        assert len(receiver.received) == 1


def test_a_tls_certificate_must_be_trusted() -> None:
    with receiving() as receiver:
        outcome = post(receiver.url.replace("http:", "https:"), {}, b"{}", seconds=5, private=True)
    assert outcome.status is None
    assert outcome.error is not None
