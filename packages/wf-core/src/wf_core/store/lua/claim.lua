-- CLAIM  KEYS {p}:m {p}:q {p}:cl {p}:hb  ARGV worker, msgpack([[token, seen], ...]). One answer a token:
-- OK, MINE (claimed by this worker, which does not know it: a lost reply), DUP, STALE (not in flight), LATER (not live).
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local live = redis.call('HGET', KEYS[1], 'live') == '1'
local answers, taken = {}, {}
for i, ask in ipairs(cmsgpack.unpack(ARGV[2])) do
  local token, seen = ask[1], ask[2] or taken[ask[1]]
  local claim = redis.call('HGET', KEYS[3], token)
  if not live then
    answers[i] = 'LATER'
  elseif redis.call('HEXISTS', KEYS[2], token) == 0 then
    answers[i] = 'STALE'
  elseif not claim then
    redis.call('HSET', KEYS[3], token, ARGV[1] .. '|' .. now)
    answers[i] = 'OK'
  else
    answers[i] = (string.match(claim, '^(.*)|') == ARGV[1] and not seen) and 'MINE' or 'DUP'
  end
  if answers[i] == 'OK' or answers[i] == 'MINE' then taken[token] = true end
end
if next(taken) then redis.call('HINCRBY', KEYS[4], ARGV[1], 1) end
return answers
