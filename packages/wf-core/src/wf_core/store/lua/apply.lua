-- APPLY  KEYS {p}:m and every key of the ops
-- ARGV nonce, prev, next, batch, seq, ts, digest of the record before next, then the ops: number of words, command, key, ...
local m = redis.call('HMGET', KEYS[1], 'own', 'off', 'bid')
if m[1] ~= ARGV[1] then return 'FENCED' end
if (m[2] or '0') ~= ARGV[2] then
  if m[2] == ARGV[3] and m[3] == ARGV[4] then return 'DUP' end -- own retry after a lost reply: success
  return 'BEHIND' -- Redis rolled back, or someone applied: reload
end
local at, words = 8, #ARGV
while at < words do
  local first, last = at + 1, at + ARGV[at]
  at = last + 1
  if ARGV[first] ~= 'XADD' then
    redis.call(unpack(ARGV, first, last))
  else
    local reply = redis.pcall(unpack(ARGV, first, last))
    if type(reply) == 'table' and reply.err then -- the id is not above the last one: the log had lost its tail
      local newest = redis.call('XREVRANGE', ARGV[first + 1], '+', '-', 'COUNT', 1)
      if not newest[1] then return reply end
      local ms, n = string.match(newest[1][1], '^(%d+)-(%d+)$')
      local id = ms .. '-' .. string.format('%.0f', n + 1000) -- readers count the lines of the entry back from it
      redis.call('XADD', ARGV[first + 1], id, 'shifted', '1', unpack(ARGV, first + 3, last))
    end
  end
end
local last = ARGV[4] .. '|' .. ARGV[3] .. '|' .. ARGV[7] -- an older release leaves it as it was
redis.call('HSET', KEYS[1], 'off', ARGV[3], 'bid', ARGV[4], 'seq', ARGV[5], 'ts', ARGV[6], 'last', last)
return 'OK'
