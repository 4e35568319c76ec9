"""Keys are told to nobody who reads a table."""

import pytest

from zeventfs.dm.keys import without_keys

KEY = "000102030405060708090a0b0c0d0e0f"


@pytest.mark.parametrize(
    ("kind", "table", "shown"),
    [
        # As dmsetup 1.02.185 prints it
        ("crypt", f"aes-xts-plain64 {KEY} 10 7:0 0", f"aes-xts-plain64 {'0' * 32} 10 7:0 0"),
        ("crypt", "null-ecb - 0 7:0 0", "null-ecb 0 0 7:0 0"),
        ("crypt", "aes-xts-plain64 :32:logon:k 17 7:0 4", "aes-xts-plain64 :32:logon:k 17 7:0 4"),
        ("crypt", "", ""),
        ("crypt", "aes", "aes"),
        (
            "integrity",
            f"7:3 0 32 J 3 internal_hash:hmac(sha256):{KEY} journal_mac:sha256 block_size:512",
            f"7:3 0 32 J 3 internal_hash:hmac(sha256):{'0' * 32} journal_mac:sha256 block_size:512",
        ),
        (
            "integrity",
            f"7:3 0 32 J 2 journal_crypt:ctr(aes):{KEY} journal_mac:hmac(sha256):{KEY}",
            f"7:3 0 32 J 2 journal_crypt:ctr(aes):{'0' * 32} journal_mac:hmac(sha256):{'0' * 32}",
        ),
        ("linear", "aes internal_hash:a:b", "aes internal_hash:a:b"),
    ],
)
def test_keys_are_zeros_and_all_else_stays(kind: str, table: str, shown: str) -> None:
    assert without_keys(kind, table) == shown
    assert without_keys(kind, shown) == shown
