"""What the done-store on Redis runs there; its keys are told in ``redis_done_store.py``."""

__all__ = ["ASK", "FORGET", "LOG", "LOG_END", "MARK", "ORDER", "PUT", "READ"]

# Notes the ids in ``changed``; the log keeps what is as old as the records, and goes with them.
# One of a store that nobody uses any more has an end, like the rest of its keys.
_NOTE = """
if #changed > 0 then
  local oldest = math.max(0, math.floor(now / 1000) - tonumber(keep))
  redis.call('XADD', log, 'MINID', '~', text(oldest), '*', 'ids', table.concat(changed))
  redis.call('PEXPIRE', log, keep)
end
"""

# Of a script whose first keys are the last token and the log, and whose first arguments are the
# retention in ms and 1 where replicas are waited for.
_BEGIN = """#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local keep, replicated = ARGV[1], ARGV[2] == '1'
local log, changed = KEYS[2], {}
local first = tonumber(redis.call('GET', KEYS[1]) or '0')
local last = first
local function text(number) return string.format('%.0f', number) end
"""
_FINISH = f"""
if last > first or replicated then redis.call('SET', KEYS[1], text(last)) end
{_NOTE}return answers
"""

# KEYS: the last token, the log, then per request a task and its repository (the first key for
# none). ARGV: retention in ms, 1 where replicas are waited for (an answer may tell what they do
# not have yet, so something is written with each), then nine per request: the bytes of its task,
# what is asked, token, lease in us, owner, failure, the time of the task in ms, 0 where it has no
# order, what a new token has to be above, and after how many attempts a task is not superseded, 0
# for none. The answer to each request is a list of texts: state,
# token, us left, failures, losses, failure.
ASK = _BEGIN
ASK += """
local function note(at) changed[#changed + 1] = ARGV[at] end
local answers = {}
for i = 3, #KEYS, 2 do
  local at = (i - 3) / 2 * 9 + 3
  local what, mine, lease = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local owner, failure, born = ARGV[at + 4], ARGV[at + 5], tonumber(ARGV[at + 6])
  local above, most = tonumber(ARGV[at + 7]), tonumber(ARGV[at + 8])
  local latest = 0
  if born > 0 then latest = tonumber(redis.call('GET', KEYS[i + 1]) or '0') end
  local raw = redis.call('GET', KEYS[i]) or ''
  local state, token, till, failed, lost, holder, why =
    string.match(raw, '^(%a)|(%d+)|(%d+)|(%d+)|(%d+)|([^|]*)|(.*)$')
  local ended = string.match(raw, '^([ds])|')
  if ended then state, token = ended, string.sub(raw, 3) end
  state = state or 'n'
  failed, lost = tonumber(failed or '0'), tonumber(lost or '0')
  why = why or ''
  local answer = {'no', '0', '0', '0', '0', ''}
  if what == 'claim' then
    local left = tonumber(till or '0') - now
    local gone = (state == 'c' and holder ~= owner) and 1 or 0
    local spent = most > 0 and failed + lost + gone >= most
    if state == 'd' then
      answer[1] = 'done'
    elseif state == 's' then
      answer[1] = 'superseded'
    elseif state == 'c' and left > 0 and holder ~= owner then
      answer = {'held', '0', text(left), '0', '0', ''}
    elseif latest > born and not spent then
      last = math.max(last + 1, now, tonumber(token or '0') + 1, above + 1)
      redis.call('SET', KEYS[i], 's|' .. text(last), 'PX', keep)
      note(at)
      answer[1] = 'superseded'
    else
      lost = lost + gone
      last = math.max(last + 1, now, tonumber(token or '0') + 1, above + 1)
      redis.call('SET', KEYS[i], table.concat({'c', text(last), text(now + lease), failed, lost,
        owner, why}, '|'), 'PX', keep)
      note(at)
      answer = {'granted', text(last), '0', text(failed), text(lost), why}
    end
  elseif token == mine then
    if what == 'complete' and (state == 'c' or state == 'd') then
      redis.call('SET', KEYS[i], 'd|' .. token, 'PX', keep)
      note(at)
      if born > latest then redis.call('SET', KEYS[i + 1], text(born), 'PX', keep) end
      answer[1] = 'yes'
    elseif what == 'renew' and state == 'c' then
      redis.call('SET', KEYS[i], table.concat({'c', token, text(now + lease), failed, lost,
        holder, why}, '|'), 'PX', keep)
      answer[1] = 'yes'
    elseif what == 'release' and state == 'c' then
      if failure ~= '' then failed, why = failed + 1, failure end
      redis.call('SET', KEYS[i], table.concat({'r', token, '0', failed, lost, '', why}, '|'),
        'PX', keep)
      note(at)
      answer[1] = 'yes'
    end
  end
  answers[(i - 1) / 2] = answer
end
"""
ASK += _FINISH

READ = """#!lua flags=no-writes
local time = redis.call('TIME')
local answers = {time[1] * 1000000 + time[2]}
for i = 1, #KEYS do answers[i + 1] = redis.call('GET', KEYS[i]) or '' end
return answers
"""

# KEYS: the log, then tasks. ARGV: retention in ms, then the 16 bytes of each task.
FORGET = """#!lua flags=allow-oom
local time = redis.call('TIME')
local now, keep, count = time[1] * 1000000 + time[2], ARGV[1], 0
local log, changed = KEYS[1], {}
local function text(number) return string.format('%.0f', number) end
for i = 2, #KEYS do
  local raw = redis.call('GET', KEYS[i]) or ''
  if string.match(raw, '^[ds]|') then
    redis.call('SET', KEYS[i], 'r|' .. string.sub(raw, 3) .. '|0|0|0||', 'PX', keep)
    changed[#changed + 1] = ARGV[i]
    count = count + 1
  elseif raw ~= '' then
    redis.call('PEXPIRE', KEYS[i], keep)
  end
end
"""
FORGET += f"{_NOTE}return count\n"

# KEYS: the last token, the log, then tasks. ARGV: retention in ms, 1 where replicas are waited for,
# then six per record: the bytes of its task, d or s if it has ended, done or superseded, token,
# failures, losses, failure. The answer to each is 1 if it was taken: one that has ended, over all
# but an end; another, over what says less and is not claimed.
PUT = _BEGIN
PUT += """
local answers = {}
for i = 3, #KEYS do
  local at = (i - 3) * 6 + 3
  local token, failed, lost = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local raw = redis.call('GET', KEYS[i]) or ''
  local state, mine, _, times, losses =
    string.match(raw, '^(%a)|(%d+)|(%d+)|(%d+)|(%d+)|')
  mine = tonumber(mine or '0')
  local value
  if string.match(raw, '^[ds]|') then
    value = nil
  elseif ARGV[at + 1] ~= '' then
    value = ARGV[at + 1] .. '|' .. text(token == mine and token or math.max(token, mine + 1))
  elseif state == 'c' or state and (mine > token or mine == token and
      tonumber(times) + tonumber(losses) >= failed + lost) then
    value = nil
  else
    value = table.concat({'r', text(token), '0', failed, lost, '', ARGV[at + 5]}, '|')
  end
  if value then
    redis.call('SET', KEYS[i], value, 'PX', keep)
    changed[#changed + 1] = ARGV[at]
    last = math.max(last, token, mine + 1)
  end
  answers[i - 2] = value and 1 or 0
end
"""
PUT += _FINISH

# KEYS: repositories. ARGV: retention in ms, then the time of the last task done of each, in ms.
ORDER = """#!lua flags=allow-oom
for i = 1, #KEYS do
  local known = redis.call('GET', KEYS[i]) or '0'
  local later = tonumber(ARGV[i + 1]) > tonumber(known) and ARGV[i + 1] or known
  redis.call('SET', KEYS[i], later, 'PX', ARGV[1])
end
return #KEYS
"""

# KEYS: the mark. ARGV: retention in ms, the mark.
MARK = """#!lua flags=allow-oom
return redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
"""

# KEYS: the log. ARGV: the first and last entry that are wanted, and how many. The answer is the
# server's time in us, and the entries.
LOG = """#!lua flags=no-writes
local time = redis.call('TIME')
local entries = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])
return {time[1] * 1000000 + time[2], entries}
"""

LOG_END = """#!lua flags=no-writes
return redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
"""
