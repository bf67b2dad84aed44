-- Which calls `t` somebody had to pay for, of those that are asked for and that whoever asks may see.
not t.cache_hit and t.status <> 'blocked' and ifNull(t.price_version <> 'not billed', 1) and ${organization} and ${reader}
