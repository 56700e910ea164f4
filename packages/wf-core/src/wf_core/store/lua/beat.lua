-- BEAT  KEYS {p}:m {p}:q {p}:cl {p}:hb {p}:pg  ARGV worker, msgpack([token, ...]) that it holds,
--       msgpack([[token, offset, incarnation], ...]) results appended and not known to be folded, ms after which an unknown claim is dropped,
--       msgpack([[token, JSON], ...]) progress that is new, ms that progress outlives the last beat,
--       msgpack([[token, token before it], ...]) of those that it began by itself
-- {tokens to cancel, results that were folded, results to append again, begun tokens that are in flight and its own}.
-- Nothing is judged gone before the partition is live, and nothing begun while what decides on it was not folded.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stamp = string.format('%s|%.0f', ARGV[1], now)
local m = redis.call('HMGET', KEYS[1], 'live', 'off', 'inc', 'own', 'run')
local live, off, inc = m[1] == '1', tonumber(m[2] or '0'), m[3] or ''
local owner, run = string.match(m[5] or '', '^(.*)|(%x+)$')
if live and run and (owner == m[4] or (m[4] or '') == '') then -- as in CLAIM
  live = run == string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end
local cancel, folded, resend, begun, known, mine, judged, before = {}, {}, {}, {}, {}, {}, {}, {}
for _, pair in ipairs(cmsgpack.unpack(ARGV[7])) do before[pair[1]] = pair[2] end
redis.call('HINCRBY', KEYS[4], ARGV[1], 1)
local function holder(token) -- asserts a claim that a roll-back of Redis forgot
  known[token] = true
  local claim = redis.call('HGET', KEYS[3], token)
  if claim then return string.match(claim, '^(.*)|') end
  redis.call('HSET', KEYS[3], token, stamp)
  return ARGV[1]
end
local function gone(token) -- not in flight, nor begun by the result of one that still is: that result is not folded yet
  if judged[token] == nil then
    judged[token] = redis.call('HEXISTS', KEYS[2], token) == 0 and (not before[token] or gone(before[token]))
  end
  return judged[token]
end
for _, token in ipairs(cmsgpack.unpack(ARGV[2])) do
  if redis.call('HEXISTS', KEYS[2], token) == 0 then
    if live and gone(token) then cancel[#cancel + 1] = token end
  elseif holder(token) ~= ARGV[1] then
    cancel[#cancel + 1] = token
  else
    mine[token] = true
    if before[token] then begun[#begun + 1] = token end
  end
end
for _, done in ipairs(cmsgpack.unpack(ARGV[3])) do
  local token, position, incarnation = done[1], done[2], done[3]
  if redis.call('HEXISTS', KEYS[2], token) == 0 then
    if live and gone(token) then folded[#folded + 1] = token end
  elseif holder(token) == ARGV[1] then
    if before[token] then begun[#begun + 1] = token end
    if inc ~= '' and (inc ~= incarnation or off > position) then resend[#resend + 1] = token end
  end
end
local claims = redis.call('HGETALL', KEYS[3]) -- a claim whose reply never came: without this nobody would run it
for i = 1, #claims, 2 do
  local worker, since = string.match(claims[i + 1], '^(.*)|(%d+)$')
  if worker == ARGV[1] and not known[claims[i]] and now - since > tonumber(ARGV[4]) then
    redis.call('HDEL', KEYS[3], claims[i])
  end
end
for _, said in ipairs(cmsgpack.unpack(ARGV[5])) do
  if mine[said[1]] then redis.call('HSET', KEYS[5], said[1], said[2]) end
end
if redis.call('PEXPIRE', KEYS[5], ARGV[6]) == 1 then -- most partitions hold none
  for _, token in ipairs(redis.call('HKEYS', KEYS[5])) do
    if redis.call('HEXISTS', KEYS[3], token) == 0 then redis.call('HDEL', KEYS[5], token) end
  end
end
return {cancel, folded, resend, begun}
