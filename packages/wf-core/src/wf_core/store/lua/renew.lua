-- RENEW  KEYS {p}:m  ARGV nonce, lease ms, '1' when the owner has caught up. The stored offset, nil when fenced.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local m = redis.call('HMGET', KEYS[1], 'own', 'off')
if m[1] ~= ARGV[1] then return false end
redis.call('HSET', KEYS[1], 'lease', string.format('%.0f', now + ARGV[2]))
if ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'live', '1') end
return m[2] or '0'
