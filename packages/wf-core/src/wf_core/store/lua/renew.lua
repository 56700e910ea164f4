-- RENEW  KEYS {p}:m  ARGV nonce, lease ms, the owner's offset ('': a batch is being folded), '1' when it has caught up.
-- The stored offset, nil when fenced. Live is only what an owner says that stands where Redis stands: after a roll-back
-- claims are older than the world. It holds for this run of the server: another one may have forgotten something.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local m = redis.call('HMGET', KEYS[1], 'own', 'off')
if m[1] ~= ARGV[1] then return false end
local off = m[2] or '0'
redis.call('HSET', KEYS[1], 'lease', string.format('%.0f', now + ARGV[2]))
if ARGV[3] ~= '' and ARGV[3] ~= off then
  redis.call('HSET', KEYS[1], 'live', '')
elseif ARGV[3] ~= '' and ARGV[4] == '1' then
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  redis.call('HSET', KEYS[1], 'live', '1', 'run', ARGV[1] .. '|' .. run)
end
return off
