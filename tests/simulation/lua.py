"""Runs the Lua scripts themselves, as Redis does: `redis.call`, `redis.pcall`, `cmsgpack`, whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from lupa import lua51
from redis.exceptions import ResponseError

_PRELUDE = rb"""
local byte, sub = string.byte, string.sub
local function number(s, i, n)
  local value = 0
  for k = i, i + n - 1 do value = value * 256 + byte(s, k) end
  return value
end
local decode
local function text(s, i, n) return sub(s, i, i + n - 1), i + n end
local function list(s, i, n)
  local items = {}
  for k = 1, n do items[k], i = decode(s, i) end
  return items, i
end
function decode(s, i)
  local t = byte(s, i)
  i = i + 1
  if t < 0x80 then return t, i end
  if t >= 0xe0 then return t - 256, i end
  if t >= 0xa0 and t < 0xc0 then return text(s, i, t - 0xa0) end
  if t >= 0x90 and t < 0xa0 then return list(s, i, t - 0x90) end
  if t == 0xc0 then return nil, i end
  if t == 0xc2 then return false, i end
  if t == 0xc3 then return true, i end
  if t == 0xd9 or t == 0xc4 then return text(s, i + 1, byte(s, i)) end
  if t == 0xda or t == 0xc5 then return text(s, i + 2, number(s, i, 2)) end
  if t == 0xdb or t == 0xc6 then return text(s, i + 4, number(s, i, 4)) end
  if t == 0xdc then return list(s, i + 2, number(s, i, 2)) end
  if t == 0xdd then return list(s, i + 4, number(s, i, 4)) end
  if t == 0xcc then return byte(s, i), i + 1 end
  if t == 0xcd then return number(s, i, 2), i + 2 end
  if t == 0xce then return number(s, i, 4), i + 4 end
  if t == 0xcf then return number(s, i, 8), i + 8 end
  if t == 0xd0 or t == 0xd1 or t == 0xd2 or t == 0xd3 then
    local n = 2 ^ (t - 0xd0)
    local value = number(s, i, n)
    if value >= 2 ^ (8 * n - 1) then value = value - 2 ^ (8 * n) end
    return value, i + n
  end
  error('msgpack type ' .. t .. ' is not known')
end
cmsgpack = { unpack = function(s) return (decode(s, 1)) end }
setmetatable(_G, { __newindex = function(_, name) error('a script sets the global ' .. name) end })
"""
_lua = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=False)
_lua.execute(_PRELUDE)
_table_from = _lua.table_from
_is_table = lua51.lua_type


@cache
def compiled(source: str) -> Any:
    """The script as a function of KEYS, ARGV and redis. A global that it sets by mistake is an error, as in Redis."""
    return _lua.execute(f"return function(KEYS, ARGV, redis) {source}\nend".encode())


class Runtime:
    """Runs scripts against `command(name, arguments)`."""

    def __init__(self, command: Callable[[bytes, list[bytes]], Any]) -> None:
        self._command = command
        self._redis = _table_from({b"call": self._call, b"pcall": self._pcall})

    def run(self, source: str, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Any:
        """The script's reply as a client sees it."""
        return _reply(compiled(source)(_table_from(keys), _table_from(arguments), self._redis))

    def _call(self, name: bytes, *arguments: Any) -> Any:
        return _to_lua(self._command(name, [a if a.__class__ is bytes else _number(a) for a in arguments]))

    def _pcall(self, name: bytes, *arguments: Any) -> Any:
        try:
            return self._call(name, *arguments)
        except ResponseError as error:
            return _table_from({b"err": str(error).encode()})


def _number(value: Any) -> bytes:
    if isinstance(value, float) and not value.is_integer():
        return repr(value).encode()
    return b"%d" % int(value)


def _to_lua(value: Any) -> Any:
    if value is None:
        return False
    if isinstance(value, list):
        return _table_from([_to_lua(one) for one in value])
    return value


def _reply(value: Any) -> Any:
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if _is_table(value) == "table":
        error = value[b"err"]
        if error is not None:
            raise ResponseError(error.decode())
        found = []
        n = 1
        while (item := value[n]) is not None:
            found.append(_reply(item))
            n += 1
        return found
    return int(value) if isinstance(value, float) else value
