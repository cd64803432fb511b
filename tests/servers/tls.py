"""A certificate of a host that does not exist, signed by itself, for servers on loopback.

Good from 2020 to 2120. Its key is no secret: nobody but these tests trusts it.
"""

import ssl
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final


HOST: Final = "receiver.example"

_KEY: Final = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgDGhXMMEQZp6w9FDS
ofyMXpApmo8gQKQ64yS49X3zKlOhRANCAATW/ka0PwCwJ95tzjQL92rwEC9mZZ1g
xyjiFNrVMZbgRf7FaVYBlW/x0yGxQF1NgFhEn3DIzJAs24a0GavUTre6
-----END PRIVATE KEY-----
"""
_CERTIFICATE: Final = """\
-----BEGIN CERTIFICATE-----
MIIBdzCCARygAwIBAgIBATAKBggqhkjOPQQDAjAbMRkwFwYDVQQDDBByZWNlaXZl
ci5leGFtcGxlMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAbMRkw
FwYDVQQDDBByZWNlaXZlci5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcD
QgAE1v5GtD8AsCfebc40C/dq8BAvZmWdYMco4hTa1TGW4EX+xWlWAZVv8dMhsUBd
TYBYRJ9wyMyQLNuGtBmr1E63uqNPME0wGwYDVR0RBBQwEoIQcmVjZWl2ZXIuZXhh
bXBsZTAPBgNVHRMBAf8EBTADAQH/MB0GA1UdDgQWBBT/c/B8xHlnkH32LPEh88fH
HB9lBzAKBggqhkjOPQQDAgNJADBGAiEA1G2xW1Gikb6u/uexbxRovFUXHtGDpe8F
7r4oj/bBozMCIQDwfhABMjn6/wP3VYl+RhAWfTBVUnEaqa/RLLFq9aIKXw==
-----END CERTIFICATE-----
"""


def of_server() -> ssl.SSLContext:
    """Shows the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:  # the standard library takes it from files only
        both = Path(folder, "both.pem")
        both.write_text(_KEY + _CERTIFICATE)
        context.load_cert_chain(both)
    return context


def of_client() -> ssl.SSLContext:
    """Trusts the certificate, and no other one."""
    return ssl.create_default_context(cadata=_CERTIFICATE)
