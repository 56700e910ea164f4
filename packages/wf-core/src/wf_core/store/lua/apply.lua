-- APPLY  KEYS {p}:m and every key of the ops
-- ARGV nonce, prev, next, batch, msgpack([[command, key, ...], ...]), seq, ts, digest of the record before next
local m = redis.call('HMGET', KEYS[1], 'own', 'off', 'bid')
if m[1] ~= ARGV[1] then return 'FENCED' end
if (m[2] or '0') ~= ARGV[2] then
  if m[2] == ARGV[3] and m[3] == ARGV[4] then return 'DUP' end -- own retry after a lost reply: success
  return 'BEHIND' -- Redis rolled back, or someone applied: reload
end
for _, op in ipairs(cmsgpack.unpack(ARGV[5])) do
  if op[1] ~= 'XADD' then
    redis.call(unpack(op))
  else
    local reply = redis.pcall(unpack(op))
    if type(reply) == 'table' and reply.err then -- the id is not above the last one: the log had lost its tail
      local last = redis.call('XREVRANGE', op[2], '+', '-', 'COUNT', 1)
      if not last[1] then return reply end
      local ms, n = string.match(last[1][1], '^(%d+)-(%d+)$')
      op[3] = ms .. '-' .. string.format('%.0f', n + 1)
      redis.call(unpack(op))
    end
  end
end
local last = ARGV[4] .. '|' .. ARGV[3] .. '|' .. ARGV[8] -- an older release leaves it as it was
redis.call('HSET', KEYS[1], 'off', ARGV[3], 'bid', ARGV[4], 'seq', ARGV[6], 'ts', ARGV[7], 'last', last)
return 'OK'
