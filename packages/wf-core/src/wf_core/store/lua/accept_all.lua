-- ACCEPT_ALL  KEYS {p}:acc {p}:x:<id> of each execution  ARGV field, command of its creation
-- {} when all are kept now; else nothing is, and for each that is there already {its place, command that waits, ''}, or,
-- when it was folded, {its place, '', hash of its request}
local known = {}
for i = 1, #KEYS, 2 do
  local waiting = redis.call('HGET', KEYS[i], ARGV[i])
  if waiting then
    known[#known + 1] = {(i - 1) / 2, waiting, ''}
  else
    local folded = redis.call('HMGET', KEYS[i + 1], 'status', 'request')
    if folded[1] then known[#known + 1] = {(i - 1) / 2, '', folded[2] or ''} end
  end
end
if #known == 0 then
  for i = 1, #KEYS, 2 do redis.call('HSET', KEYS[i], ARGV[i], ARGV[i + 1]) end
end
return known
