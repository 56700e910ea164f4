-- LEASE  KEYS {p}:m  ARGV nonce, lease ms. Free, expired or own: take, and not live until the owner has caught up.
-- {off, inc, seq, ts, gen, digest of the record before off ('': unknown)} when taken, nil while another holds it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local m = redis.call('HMGET', KEYS[1], 'own', 'lease', 'off', 'inc', 'seq', 'ts', 'gen', 'bid', 'last')
local owner = m[1] or ''
if owner ~= '' and owner ~= ARGV[1] and tonumber(m[2] or '0') > now then return false end
redis.call('HSET', KEYS[1], 'own', ARGV[1], 'lease', string.format('%.0f', now + ARGV[2]), 'live', '')
local batch, last = (m[8] or '') .. '|' .. (m[3] or '') .. '|', m[9] or ''
local digest = string.sub(last, 1, #batch) == batch and string.sub(last, #batch + 1) or '' -- else it is about another batch
return {m[3] or '0', m[4] or '', m[5] or '0', m[6] or '0', m[7] or '0', digest}
