-- CLAIM  KEYS {p}:m {p}:q {p}:cl {p}:hb
-- ARGV worker, msgpack([[token, seen, queued_at], ...]), run ids of the servers on which it has beaten. An answer a token:
-- OK, MINE (claimed by this worker, which does not know it: a lost reply), DUP, STALE (not in flight, or a message of
-- another dispatch: its execution was deleted and created again), LATER (not live, as RENEW says; or the worker has not
-- beaten since the server started: others may still have to assert their claims).
local time = redis.call('TIME')
local stamp = string.format('%s|%.0f', ARGV[1], time[1] * 1000 + math.floor(time[2] / 1000))
local m = redis.call('HMGET', KEYS[1], 'own', 'live', 'run')
local live = m[2] == '1'
local owner, run = string.match(m[3] or '', '^(.*)|(%x+)$')
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if live and run and (owner == m[1] or (m[1] or '') == '') then -- else an owner of an older release, which notes no run
  live = run == server
end
if ARGV[3] and ARGV[3] ~= '' and not string.find(ARGV[3], server, 1, true) then live = false end
local asks, answers, taken = cmsgpack.unpack(ARGV[2]), {}, {}
for first = 1, #asks, 1000 do -- `unpack` breaks near 8,000
  local last, tokens = math.min(first + 999, #asks), {}
  for i = first, last do tokens[#tokens + 1] = asks[i][1] end
  local held, dispatched = redis.call('HMGET', KEYS[3], unpack(tokens)), redis.call('HMGET', KEYS[2], unpack(tokens))
  local claims = {'', string.rep(' ', 65)}
  for i, token in ipairs(tokens) do
    local seen, queued = asks[first + i - 1][2] or taken[token], asks[first + i - 1][3]
    local answer
    if not live then
      answer = 'LATER'
    elseif not dispatched[i] or (queued and queued ~= dispatched[i]) then
      answer = 'STALE'
    elseif held[i] or taken[token] then
      local mine = string.match(held[i] or stamp, '^(.*)|') == ARGV[1]
      answer = (mine and not seen) and 'MINE' or 'DUP'
    else
      claims[#claims + 1] = token
      claims[#claims + 1] = stamp
      answer = 'OK'
    end
    if answer == 'OK' or answer == 'MINE' then taken[token] = true end
    answers[first + i - 1] = answer
  end
  if #claims > 34 then -- as in TRIM
    redis.call('HSET', KEYS[3], unpack(claims))
    redis.call('HDEL', KEYS[3], '')
  elseif claims[3] then
    redis.call('HSET', KEYS[3], unpack(claims, 3))
  end
end
if next(taken) then redis.call('HINCRBY', KEYS[4], ARGV[1], 1) end
return answers
