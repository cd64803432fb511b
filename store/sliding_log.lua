-- The exact sliding window of indexer/core/sliding_log.py, as one step of Redis and by its clock.
--
-- KEYS: the logs, all different. Each is a list of when requests were let through, in unix
-- microseconds, the oldest first; one that is not there is empty.
-- ARGV: for each log its quota and its window in microseconds.
-- Returns for each log: 1 when it had room, how many more it would let through, and in how many
-- microseconds one more than that. The request was entered everywhere if all of them had room.

-- A log outlives its window a little: Redis rounds, and what is gone cannot be counted.
local SLACK_MS = 1000
-- As many values as one command is given: Lua has no room for a whole log on its stack.
local PIECE = 1000

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function enter(key, times, window)
  redis.call('RPUSH', key, unpack(times))
  redis.call('PEXPIRE', key, math.ceil(window / 1000) + SLACK_MS)
end

-- A whole number as text: the way that Lua itself chooses may have an exponent.
local function text(number)
  return string.format('%.0f', number)
end

-- The clock was set back: the log is moved so that its newest entry is of now.
local function move(key, ahead, window)
  local times = redis.call('LRANGE', key, 0, -1)
  redis.call('DEL', key)
  for first = 1, #times, PIECE do
    local piece = {}
    for i = first, math.min(first + PIECE - 1, #times) do
      piece[#piece + 1] = text(tonumber(times[i]) - ahead)
    end
    enter(key, piece, window)
  end
end

-- How many entries have left the window: they are looked for by halves.
local function gone(key, length, edge)
  local low, high = 0, length
  while low < high do
    local middle = math.floor((low + high) / 2)
    if tonumber(redis.call('LINDEX', key, middle)) <= edge then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local function forget(key, window)
  local newest = redis.call('LINDEX', key, -1)
  if not newest then
    return 0
  end
  if tonumber(newest) > now then
    move(key, tonumber(newest) - now, window)
  end
  local length = redis.call('LLEN', key)
  if tonumber(redis.call('LINDEX', key, 0)) > now - window then
    return length
  end
  local left = gone(key, length, now - window)
  redis.call('LTRIM', key, left, -1)
  return length - left
end

local lengths, all = {}, true
for i, key in ipairs(KEYS) do
  lengths[i] = forget(key, tonumber(ARGV[2 * i]))
  all = all and lengths[i] < tonumber(ARGV[2 * i - 1])
end

local standings = {}
for i, key in ipairs(KEYS) do
  local quota, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local had_room = lengths[i] < quota
  if all then
    enter(key, { text(now) }, window)
    lengths[i] = lengths[i] + 1
  end
  local reset = 0
  if lengths[i] > 0 then
    -- The quota may have been lowered: then so many more must leave.
    reset = tonumber(redis.call('LINDEX', key, math.max(0, lengths[i] - quota))) + window - now
  end
  standings[#standings + 1] = had_room and 1 or 0
  standings[#standings + 1] = math.max(0, quota - lengths[i])
  standings[#standings + 1] = reset
end
return standings
