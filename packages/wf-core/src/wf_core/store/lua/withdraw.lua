-- WITHDRAW  KEYS {p}:m {p}:q {p}:cl  ARGV nonce, msgpack([token, ...]). Condemns those in flight and unclaimed.
-- The tokens that are condemned now; those that were before are among them. None when fenced.
if redis.call('HGET', KEYS[1], 'own') ~= ARGV[1] then return {} end
local time = redis.call('TIME')
local stamp = string.format('condemned|%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local withdrawn = {}
for _, token in ipairs(cmsgpack.unpack(ARGV[2])) do
  local claim = redis.call('HGET', KEYS[3], token)
  if redis.call('HEXISTS', KEYS[2], token) == 1 and (not claim or string.match(claim, '^(.*)|') == 'condemned') then
    redis.call('HSET', KEYS[3], token, stamp)
    withdrawn[#withdrawn + 1] = token
  end
end
return withdrawn
