-- TRIM  KEYS {p}:m {p}:q {p}:qa and the outboxes  ARGV nonce, msgpack([[token, where, index of its outbox in KEYS], ...])
-- An outbox entry was sent: note where, if it is still wanted. 1, or 0 when fenced.
if redis.call('HGET', KEYS[1], 'own') ~= ARGV[1] then return 0 end
for _, sent in ipairs(cmsgpack.unpack(ARGV[2])) do
  local token, where, outbox = sent[1], sent[2], KEYS[sent[3]]
  if redis.call('HEXISTS', KEYS[2], token) == 1 then redis.call('HSET', KEYS[3], token, where) end
  redis.call('ZREM', outbox, token)
end
return 1
