-- RELEASE  KEYS {p}:m or {t:queue:n}  ARGV nonce. 1 when the lease was this owner's.
if redis.call('HGET', KEYS[1], 'own') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'own', '', 'lease', '0')
return 1
