-- CLAIM  KEYS {p}:m {p}:q {p}:cl {p}:hb
-- ARGV worker, msgpack([[token, seen, queued_at], ...]), run ids of the servers on which it has beaten. An answer a token:
-- OK, MINE (claimed by this worker, which does not know it: a lost reply), DUP, STALE (not in flight, or a message of
-- another dispatch: its execution was deleted and created again), LATER (not live, as RENEW says; or the worker has not
-- beaten since the server started: others may still have to assert their claims).
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local m = redis.call('HMGET', KEYS[1], 'own', 'live', 'run')
local live = m[2] == '1'
local owner, run = string.match(m[3] or '', '^(.*)|(%x+)$')
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if live and run and (owner == m[1] or (m[1] or '') == '') then -- else an owner of an older release, which notes no run
  live = run == server
end
if ARGV[3] and ARGV[3] ~= '' and not string.find(ARGV[3], server, 1, true) then live = false end
local answers, taken = {}, {}
for i, ask in ipairs(cmsgpack.unpack(ARGV[2])) do
  local token, seen, queued = ask[1], ask[2] or taken[ask[1]], ask[3]
  local claim, dispatched = redis.call('HGET', KEYS[3], token), redis.call('HGET', KEYS[2], token)
  if not live then
    answers[i] = 'LATER'
  elseif not dispatched or (queued and queued ~= dispatched) then
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
