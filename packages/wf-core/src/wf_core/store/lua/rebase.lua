-- REBASE  KEYS {p}:m  ARGV nonce, incarnation, offset. A new log, or one that lost its tail: read on from there.
-- The generation grows whenever offsets start to repeat, so that ids of the history never go back. 1, or 0 when fenced.
local m = redis.call('HMGET', KEYS[1], 'own', 'inc', 'off')
if m[1] ~= ARGV[1] then return 0 end
local inc, off = m[2] or '', tonumber(m[3] or '0')
if inc == ARGV[2] and off == tonumber(ARGV[3]) then return 1 end
if (inc ~= '' and inc ~= ARGV[2]) or off > tonumber(ARGV[3]) then redis.call('HINCRBY', KEYS[1], 'gen', 1) end
redis.call('HSET', KEYS[1], 'inc', ARGV[2], 'off', ARGV[3], 'bid', '', 'live', '')
return 1
