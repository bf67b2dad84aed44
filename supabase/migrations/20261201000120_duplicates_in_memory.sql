-- Repeated requests are looked for in memory: with the usual 4 MB the table of all requests of a month goes through files, and the time of
-- the answer grows faster than the calls.

alter function public.duplicate_requests(timestamptz, timestamptz, text, integer) set work_mem = '64MB';
