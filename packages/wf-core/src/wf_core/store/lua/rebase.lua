-- REBASE  KEYS {p}:m  ARGV nonce, incarnation, offset. A new log, or one that lost its tail: read on from there.
-- The generation grows each time but the first, as offsets may repeat, so that ids of the history never go back.
-- 1, or 0 when fenced.
local m = redis.call('HMGET', KEYS[1], 'own', 'inc', 'off', 'bid')
if m[1] ~= ARGV[1] then return 0 end
local inc = m[2] or ''
if inc == ARGV[2] and (m[3] or '0') == ARGV[3] and (m[4] or '') == '' then return 1 end -- own retry after a lost reply
if inc ~= '' then redis.call('HINCRBY', KEYS[1], 'gen', 1) end
redis.call('HSET', KEYS[1], 'inc', ARGV[2], 'off', ARGV[3], 'bid', '', 'live', '')
return 1
