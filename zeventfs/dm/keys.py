"""Tables without their secrets: the kernel tells whoever may ask it the keys of dm-crypt in clear.

Nothing that is kept, told or shown of a table has a key in it: tables come through here first.
"""

import re

__all__ = ["without_keys"]

# "<cipher> <key> <iv offset> ...": Documentation/admin-guide/device-mapper/dm-crypt.rst. One that
# begins with a colon names a key of the kernel's keyring, and is no secret.
_CRYPT = re.compile(r"^(\S+ )([^: ]\S*)")
# "internal_hash:<algorithm>:<key>": dm-integrity.rst, there
_INTEGRITY = re.compile(r"(\b(?:internal_hash|journal_crypt|journal_mac):[^: ]+:)(\S+)")
_SECRETS = {"crypt": _CRYPT, "integrity": _INTEGRITY}


def without_keys(kind: str, table: str) -> str:
    """*table*, the parameters of a target of *kind*, with zeros for keys, as `dmsetup table` does.

    Its length stays, and what has no keys stays as it is.
    """
    secret = _SECRETS.get(kind)
    if secret is None:
        return table
    return secret.sub(lambda found: found[1] + "0" * len(found[2]), table)
