"""Execution ids: 26 characters of a UUIDv7 in Crockford's base32, then 2 characters that name the home partition.

The home partition is part of the id, so partitions can be added for new executions without moving old ones. Names that
are made of ids are here as well: those of attempts, and of compensations.
"""

from __future__ import annotations

import hashlib
import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE = {c: i for i, c in enumerate(_ALPHABET)}
_ID_LENGTH = 28
MAX_PARTITIONS = 32 * 32
COMPENSATION = "~compensate"
"""How the id of a compensation ends; before it stands that of the node that it undoes."""


_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)


def _base32(value: int, length: int) -> str:
    """`length`, which is even, digits of `value`."""
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(5 * length - 10, -1, -10)])


def new_execution_id(partition: int, now_ms: int) -> str:
    """A new id in `partition`, ordered by time. `now_ms` is Unix time in milliseconds. Layout: RFC 9562, version 7."""
    rand = secrets.randbits(74)
    value = (now_ms & (2**48 - 1)) << 80 | 7 << 76 | (rand >> 62) << 64 | 2 << 62 | rand & (2**62 - 1)
    return _base32(value, 26) + _base32(partition, 2)


def derived_execution_id(idempotency_key: str, partitions: int) -> str:
    """The one id that this idempotency key always gives (RFC 9562, version 8: a hash in place of the time)."""
    return derived_execution_ids(idempotency_key, partitions, 1)[0]


def derived_execution_ids(idempotency_key: str, partitions: int, count: int) -> tuple[str, ...]:
    """The ids that a key always gives to the executions of a batch, in turn in one partition after the other.

    The first is the one that the key gives to a single execution: whoever has it has the key.
    """
    first = _digest(idempotency_key)
    digests = [first, *(_digest(f"{idempotency_key} {index}") for index in range(1, count))]  # no key holds a space
    return tuple(
        _base32(_version_8(digest & (2**128 - 1)), 26) + _base32(((first >> 128) + index) % partitions, 2)
        for index, digest in enumerate(digests)
    )


def child_execution_id(token: str) -> str:
    """The id of the child execution that an attempt (`token`) starts: in its parent's partition, always the same one.

    Raises ValueError when `token` does not begin with an execution id.
    """
    home = partition_of(split_token(token)[0])
    value = int.from_bytes(hashlib.sha256(f"child/{token}".encode()).digest()[:16], "big")
    return _base32(_version_8(value), 26) + _base32(home, 2)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def _version_8(value: int) -> int:
    """128 bits of a hash with the version and variant of RFC 9562, version 8."""
    return value & ~(0xF << 76) & ~(0x3 << 62) | 8 << 76 | 2 << 62


def is_execution_id(text: str) -> bool:
    """Whether `text` has the form of an execution id."""
    return len(text) == _ID_LENGTH and not text.strip(_ALPHABET)


def partition_of(execution_id: str) -> int:
    """The home partition of an execution. Raises ValueError when the id has not the right form."""
    if not is_execution_id(execution_id):
        raise ValueError(f"{execution_id!r} is not an execution id (28 characters of 0-9 and a-z without i, l, o, u)")
    return _VALUE[execution_id[-2]] * 32 + _VALUE[execution_id[-1]]


def partition_of_key(key: str, partitions: int) -> int:
    """The partition, of `partitions`, that keeps a concurrency key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % partitions


def token(execution_id: str, node: str, attempt: int) -> str:
    """The name of one attempt: `execution/node/attempt`. Copies of a message carry the same token and are harmless."""
    return f"{execution_id}/{node}/{attempt}"


def split_token(text: str) -> tuple[str, str, int]:
    """`(execution id, node, attempt)` of a token."""
    execution_id, _, rest = text.partition("/")
    node, _, attempt = rest.rpartition("/")
    return execution_id, node, int(attempt)
