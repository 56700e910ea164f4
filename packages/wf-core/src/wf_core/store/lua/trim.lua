-- TRIM  KEYS {p}:m {p}:q {p}:qa and the outboxes  ARGV nonce, msgpack([token, ...]) that were sent, msgpack([where, ...]),
--       msgpack([[token, ...], ...]), the same by outbox. Notes where, for what is still wanted. 1, or 0 when fenced.
if redis.call('HGET', KEYS[1], 'own') ~= ARGV[1] then return 0 end
local tokens, places = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3])
if not tokens[1] then return 1 end
local wanted, noted = redis.call('HMGET', KEYS[2], unpack(tokens)), {'', string.rep(' ', 65)}
for i, token in ipairs(tokens) do
  if wanted[i] then
    noted[#noted + 1] = token
    noted[#noted + 1] = places[i]
  end
end
if #noted > 34 then -- with a long value it is a table at once, where Redis would search each field from the first one on
  redis.call('HSET', KEYS[3], unpack(noted))
  redis.call('HDEL', KEYS[3], '')
elseif noted[3] then
  redis.call('HSET', KEYS[3], unpack(noted, 3))
end
for i, sent in ipairs(cmsgpack.unpack(ARGV[4])) do redis.call('ZREM', KEYS[3 + i], unpack(sent)) end
return 1
