-- TASK_COMMIT  KEYS {t:queue:n}  ARGV nonce, offset, lease ms, offset that was committed. Never goes back, and renews.
-- 1; 0 when another holds it, or when less is stored than was committed: Redis rolled back, and the log perhaps with it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local t = redis.call('HMGET', KEYS[1], 'own', 'off')
if t[1] ~= ARGV[1] or tonumber(t[2] or '0') < tonumber(ARGV[4]) then return 0 end
local off = math.max(tonumber(t[2] or '0'), tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'off', string.format('%.0f', off), 'lease', string.format('%.0f', now + ARGV[3]))
return 1
