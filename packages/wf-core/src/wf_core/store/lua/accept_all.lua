-- ACCEPT_ALL  KEYS {p}:acc {p}:x:<id> of each execution, then {p}:d:<hash> of documents
-- ARGV number of executions, then field, command of each one's creation
-- {} when all are kept now; nil, with nothing written, when a document is not there whole. Else nothing is written either,
-- and for each that is there already {its place, command that waits, ''}, or, once folded, {its place, '', its request}
local count, known = tonumber(ARGV[1]), {}
for i = 2 * count + 1, #KEYS do
  local parts = redis.call('HGET', KEYS[i], 'parts')
  if not parts or redis.call('HLEN', KEYS[i]) ~= parts + 1 then return false end
end
for i = 1, count do
  local waiting = redis.call('HGET', KEYS[2 * i - 1], ARGV[2 * i])
  if waiting then
    known[#known + 1] = {i - 1, waiting, ''}
  else
    local folded = redis.call('HMGET', KEYS[2 * i], 'status', 'request')
    if folded[1] then known[#known + 1] = {i - 1, '', folded[2] or ''} end
  end
end
if #known == 0 then
  for i = 1, count do redis.call('HSET', KEYS[2 * i - 1], ARGV[2 * i], ARGV[2 * i + 1]) end
end
return known
