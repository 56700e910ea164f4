-- INSTALL  KEYS install  ARGV partitions, task partitions, incarnation ('' when unknown). The first writer wins,
-- but for the incarnation, which is the newest known. {partitions, task_partitions, incarnation}
redis.call('HSETNX', KEYS[1], 'partitions', ARGV[1])
redis.call('HSETNX', KEYS[1], 'task_partitions', ARGV[2])
redis.call('HSETNX', KEYS[1], 'version', '1')
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'incarnation', ARGV[3]) end
local i = redis.call('HMGET', KEYS[1], 'partitions', 'task_partitions', 'incarnation')
return {i[1], i[2], i[3] or ''}
