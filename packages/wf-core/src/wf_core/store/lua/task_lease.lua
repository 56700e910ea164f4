-- TASK_LEASE  KEYS {t:queue:n}  ARGV nonce, lease ms, incarnation of the log ('' when unknown). The offset, nil when another holds it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local t = redis.call('HMGET', KEYS[1], 'own', 'lease', 'off', 'inc')
local owner, off, inc = t[1] or '', t[3] or '0', t[4] or ''
if owner ~= '' and owner ~= ARGV[1] and tonumber(t[2] or '0') > now then return false end
if ARGV[3] ~= '' and ARGV[3] ~= inc then -- offsets of a log that is gone mean nothing in the new one
  if inc ~= '' then off = '0' end
  inc = ARGV[3]
end
redis.call('HSET', KEYS[1], 'own', ARGV[1], 'lease', string.format('%.0f', now + ARGV[2]), 'off', off, 'inc', inc)
return off
