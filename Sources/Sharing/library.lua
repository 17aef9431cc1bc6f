#!lua name=weir_sharing_3

-- The part of a shared ledger that runs in Valkey or Redis 7: an index of what the hosts have used of each pool.
-- Hosts can make it anew from their own ledgers, so nothing here is the truth. Tests/SharedSimulation/Engine.swift does
-- the same in Swift; Tests/sharing compares the two. A change to the calls or to the data needs a new version in the
-- library's name. Hosts with different versions work on the same data: version 1 lacks the changes. Versions 1 and 2 say
-- too early that hosts have returned to the terms settled last, and grant to hosts that the others do not know. They do
-- the rest in the same way.
--
-- All times are milliseconds. A lane is a pool with one window: one key of one limit. The keys are
--   KEYS[1] state  hash    the epoch, and what is known of each host
--   KEYS[2] lanes  zset    the lanes of this epoch, by the time when nothing in them counts any more
--   KEYS[3] stale  zset    the lanes of earlier epochs, which calls remove a few at a time
--   KEYS[4] changes        hash  the newest change of each subject: "number mark content"
--   KEYS[5] changes:order  zset  the subjects, by the position at which the engine has learned of the change
--   KEYS[6] changes:ends   zset  the subjects, by the epoch's time when the change ends
--   KEYS[7...]     hash    a lane: for each ledger's mark its units by slot, "slot=units slot=units"
-- Expiry by the server (PEXPIRE) is not used: a step of its clock would free units too early.

local SLOTS = 60        -- of a window
local HELD = 61         -- earlier slots that count beside the present one: one more than the window, for slow clocks
local CAP = 1000        -- a longer time between two calls counts as none: the clock was set, or nobody called
local LIVING = 10000    -- a host that was heard within this time is running
local BATCH = 8         -- lanes and changes removed per call
local CHANGES = 20000   -- kept; of more, those go first that end first

local function clock()
    local now = redis.call('TIME')
    return now[1] * 1000 + math.floor(now[2] / 1000)
end

local function text(number) return string.format('%.0f', number) end

local function slot(time, window) return math.floor(time * SLOTS / window) end

local function load(key)
    local fields, state = redis.call('HGETALL', key), {}
    for i = 1, #fields, 2 do state[fields[i]] = fields[i + 1] end
    return state
end

-- The epoch's time goes on by what the machine's clock has gone on since the last call, if that is at most CAP.
-- Returns it and what the clock reads, which the caller stores.
local function tick(state)
    local read, time = clock(), tonumber(state.time)
    local passed = state.read and read - tonumber(state.read) or 0
    if passed > 0 and passed <= CAP then time = time + passed end
    return time, read
end

local function remove(keys)
    for i = 1, #keys do redis.call('DEL', keys[i]) end
end

-- hello: KEYS[1...3]; ARGV: the newest epoch that the host has been in and its identifier, the server's run id, the
-- host's mark, the number of the connection
-- Answers the epoch, its identifier, and the terms that were settled in it last. Two epochs can have one number: two
-- servers may begin them, or one server after it was flushed. Their identifiers differ.
local function hello(KEYS, ARGV)
    local known, run = tonumber(ARGV[1]), ARGV[3]
    local state = load(KEYS[1])
    local epoch = tonumber(state.epoch or 0)
    if epoch == 0 or state.run ~= run or epoch < known or epoch == known and state.id ~= ARGV[2] then
        epoch = math.max(epoch, known) + 1
        redis.call('DEL', KEYS[1])
        local id = ARGV[4] .. '.' .. ARGV[5] .. '.' .. text(clock())
        redis.call('HSET', KEYS[1], 'epoch', text(epoch), 'id', id, 'run', run, 'time', '0')
        if redis.call('EXISTS', KEYS[2]) == 1 then
            redis.call('ZUNIONSTORE', KEYS[3], 2, KEYS[3], KEYS[2])
            redis.call('DEL', KEYS[2])
        end
        state = { id = id }
    end
    return { text(epoch), state.id, state.settled or '' }
end

-- Whether all hosts that anyone names have registered; the terms of all of them, or false if they differ; their number;
-- the position of the changes that all have seen; and for how long all hosts must have had the terms until no others
-- matter.
local function agreement(state)
    local complete, agreed, needed, terms, count, stable, longest = true, true, {}, nil, 0, nil, 0
    for field, value in pairs(state) do
        local kind, host = string.match(field, '^(%a+):(.*)$')
        if kind == 'list' and not state['gone:' .. host] then
            for name in string.gmatch(value, '[^,]+') do needed[name] = true end
        elseif kind == 'pending' and not state['gone:' .. host] then
            longest = math.max(longest, tonumber(value))
        end
    end
    for name in pairs(needed) do
        if not state['gone:' .. name] then
            count = count + 1
            if not state['registered:' .. name] then complete = false end
            local position = tonumber(state['position:' .. name] or 0)
            stable = math.min(stable or position, position)
            local has = state['terms:' .. name]
            terms = terms or has
            if not has or has ~= terms then agreed = false end
        end
    end
    return complete, agreed and complete and terms, math.max(count, 1), stable or 0, longest
end

-- Terms are settled when every host has had them for `longest`.
-- Returns whether that is so now: hosts may have had others since.
local function settle(key, state, time, terms, longest)
    if not terms then
        if state.agreed then redis.call('HDEL', key, 'agreed', 'agreed_at') end
        return false
    end
    local at = tonumber(state.agreed_at or time)
    if state.agreed ~= terms then
        at = time
        redis.call('HSET', key, 'agreed', terms, 'agreed_at', text(time))
    end
    if time - at < longest then return false end
    if state.settled ~= terms then
        state.settled = terms
        redis.call('HSET', key, 'settled', terms)
    end
    return true
end

-- Whether the terms settled last name a host, or all of their hosts do. So each of these waits for it in a new epoch.
local function isKnown(state, host)
    local known = true
    for name in string.gmatch(string.match(state.settled, '[^;]*$'), '[^,]+') do
        if name == host then return true end
        local list = ',' .. (state['list:' .. name] or '') .. ','
        if not state['gone:' .. name] and not string.find(list, ',' .. host .. ',', 1, true) then known = false end
    end
    return known
end

-- Replaces what a mark has in a lane, and grants what is free. `place` is where the lane's arguments begin:
-- window, pool, units needed, units wanted, validity, number of rows, and for each row an age and units. A negative age
-- is the time that an open grant has left.
local function exchangeLane(KEYS, ARGV, key, place, mark, time, mayGrant, hosts)
    local window, pool, need = tonumber(ARGV[place]), tonumber(ARGV[place + 1]), tonumber(ARGV[place + 2])
    local want, validity, rows = tonumber(ARGV[place + 3]), tonumber(ARGV[place + 4]), tonumber(ARGV[place + 5])
    local first, last, mine = slot(time - CAP, window) - HELD, nil, {}
    -- The slot from which the lane's place in KEYS[2] was worked out, or an earlier one.
    local listed
    local used, stored = 0, redis.call('HGETALL', key)
    local function add(at, units)
        local i = slot(at, window)
        if i < first then return end
        used = used + units
        last = math.max(last or i, i)
        mine[#mine + 1] = text(i) .. '=' .. text(units)
    end
    for i = 1, #stored, 2 do
        local latest
        if stored[i] == mark then
            -- A host writes its slots in rising order.
            latest = tonumber(string.match(string.sub(stored[i + 1], -40), '(-?%d+)=%d+$'))
        else
            local sum = 0
            for at, units in string.gmatch(stored[i + 1], '(-?%d+)=(%d+)') do
                at = tonumber(at)
                if at >= first then sum = sum + tonumber(units) end
                if not latest or at > latest then latest = at end
            end
            if latest and latest >= first then
                used = used + sum
                last = math.max(last or latest, latest)
            else
                redis.call('HDEL', key, stored[i])
            end
        end
        if latest and (not listed or latest > listed) then listed = latest end
    end
    for row = 0, rows - 1 do
        add(time - tonumber(ARGV[place + 6 + 2 * row]), tonumber(ARGV[place + 7 + 2 * row]))
    end
    local free, granted = pool - used, 0
    if mayGrant and free > 0 and want > 0 then
        granted = math.min(want, math.max(math.min(need, free), math.floor(free / (2 * hosts))))
        if granted > 0 then add(time + validity, granted) end
    end
    if #mine > 0 then
        redis.call('HSET', key, mark, table.concat(mine, ' '))
    elseif #stored > 0 then
        redis.call('HDEL', key, mark)
    end
    if last and last ~= listed then
        redis.call('ZADD', KEYS[2], text(math.ceil((last + HELD + 1) * window / SLOTS) + CAP), key)
    elseif not last then
        redis.call('ZREM', KEYS[2], key)
    end
    return granted, place + 6 + 2 * rows
end

local function removeChange(KEYS, subject)
    redis.call('HDEL', KEYS[4], subject)
    redis.call('ZREM', KEYS[5], subject)
    redis.call('ZREM', KEYS[6], subject)
end

-- Takes what a host tells of changes: for each the subject, the version's number and mark, the time until it ends, and
-- its content. The newest of a subject stays. `place` is where the first begins.
-- Returns the position of the latest change, and where the next argument is.
local function learn(KEYS, ARGV, place, count, time, state)
    local position = tonumber(state.changes)
    if not position then
        -- A new epoch, which any version of this library may have begun.
        remove({ KEYS[4], KEYS[5], KEYS[6] })
        position = 0
    end
    for _ = 1, count do
        local subject, number, mark = ARGV[place], tonumber(ARGV[place + 1]), ARGV[place + 2]
        local known, of = string.match(redis.call('HGET', KEYS[4], subject) or '-1 0', '^(%-?%d+) (%x+)')
        known = tonumber(known)
        if number > known or number == known and mark > of then
            position = position + 1
            redis.call('HSET', KEYS[4], subject, ARGV[place + 1] .. ' ' .. mark .. ' ' .. ARGV[place + 4])
            redis.call('ZADD', KEYS[5], text(position), subject)
            redis.call('ZADD', KEYS[6], text(time + tonumber(ARGV[place + 3])), subject)
        end
        place = place + 5
    end
    local surplus = count > 0 and redis.call('HLEN', KEYS[4]) - CHANGES or 0
    if surplus > 0 then
        local first = redis.call('ZRANGE', KEYS[6], 0, surplus - 1)
        for i = 1, #first do removeChange(KEYS, first[i]) end
    end
    if text(position) ~= state.changes then redis.call('HSET', KEYS[1], 'changes', text(position)) end
    return position, place
end

-- Adds the changes after a position to the reply: for each its position, subject, number, mark, the time until it ends,
-- and its content.
-- Returns the position up to which the host has seen all of them.
local function tell(KEYS, after, most, position, time, news)
    if after >= position then return position end
    local found = redis.call('ZRANGEBYSCORE', KEYS[5], '(' .. text(after), '+inf', 'WITHSCORES', 'LIMIT', 0, most)
    for i = 1, #found, 2 do
        local subject = found[i]
        local change, ends = redis.call('HGET', KEYS[4], subject), redis.call('ZSCORE', KEYS[6], subject)
        if change and ends then
            local number, mark, content = string.match(change, '^(%d+) (%x+) (.*)$')
            local left = text(math.max(0, tonumber(ends) - time))
            for _, word in ipairs({ text(tonumber(found[i + 1])), subject, number, mark, left, content }) do
                news[#news + 1] = word
            end
        end
    end
    return #found < 2 * most and position or tonumber(found[#found])
end

-- Removes changes that have ended and that all hosts have seen.
local function prune(KEYS, stable, time)
    local over = redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', text(time), 'LIMIT', 0, BATCH)
    for i = 1, #over do
        if tonumber(redis.call('ZSCORE', KEYS[5], over[i]) or 0) <= stable then removeChange(KEYS, over[i]) end
    end
end

-- exchange: KEYS[1...]; ARGV: host, mark, number of the connection, number of the call on it, the epoch's identifier,
-- whether this completes the host's registration, its newest terms, all terms that it obeys ('|' between them), the
-- hosts of them, how long older terms of this host still matter (0: it has none), how long an absent host may matter,
-- the position of the changes that the host has seen, how many more it takes, how many it tells; then for each of these
-- what `learn` takes; then for each lane what exchangeLane takes.
-- Answers 'late' (another epoch, or an earlier call), 'clone' (another ledger under this name is running), or 'ok', the
-- epoch's time, the terms settled last ('' if the host returns to them, and others still matter), the position of the
-- changes that all hosts have seen, and that of those which this host has seen now; the units granted in each lane; and
-- the changes that the host has not seen (`tell`).
local function exchange(KEYS, ARGV)
    local host, mark, connection, call = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
    local state, key = load(KEYS[1]), KEYS[1]
    local heard, latest = string.match(state['heard:' .. mark] or '0.0', '(%d+)%.(%d+)')
    heard, latest = tonumber(heard), tonumber(latest)
    if state.id ~= ARGV[5] or connection < heard or connection == heard and call <= latest then
        return { 'late' }
    end
    local time, read = tick(state)
    local owner, seen = state['mark:' .. host], tonumber(state['seen:' .. host] or 0)
    if owner and owner ~= mark and time - seen < LIVING then
        redis.call('HSET', key, 'time', text(time), 'read', text(read), 'second:' .. host, text(time))
        return { 'clone' }
    end

    local written = { 'time', text(time), 'read', text(read) }
    local function set(field, value)
        if state[field] ~= value then
            state[field] = value
            written[#written + 1], written[#written + 2] = field, value
        end
    end
    set('heard:' .. mark, ARGV[3] .. '.' .. ARGV[4])
    set('mark:' .. host, mark)
    set('seen:' .. host, text(time))
    set('terms:' .. host, ARGV[7])
    set('list:' .. host, ARGV[9])
    set('pending:' .. host, ARGV[10])
    set('position:' .. host, ARGV[12])
    set('hidden', text(math.max(tonumber(state.hidden or 0), tonumber(ARGV[11]))))
    -- Who obeys only one set of terms has seen it settled in an earlier epoch.
    if not state.settled and ARGV[7] == ARGV[8] then set('settled', ARGV[7]) end
    if ARGV[6] == '1' then set('registered:' .. host, '1') end
    redis.call('HSET', key, unpack(written))
    if state['gone:' .. host] then
        state['gone:' .. host] = nil
        redis.call('HDEL', key, 'gone:' .. host)
    end

    local complete, terms, hosts, stable, longest = agreement(state)
    local isSettled = settle(key, state, time, terms, longest)
    local latestChange, place = learn(KEYS, ARGV, 15, tonumber(ARGV[14]), time, state)
    local news = {}
    local position = tell(KEYS, tonumber(ARGV[12]), tonumber(ARGV[13]), latestChange, time, news)
    local obeys = string.find('|' .. ARGV[8] .. '|', '|' .. (state.settled or '') .. '|', 1, true)
    -- A reset that the host has not seen may have freed units that it still counts.
    local mayGrant = state.settled and obeys and state['registered:' .. host] and position == latestChange
        and (complete or time > tonumber(state.hidden)) and isKnown(state, host)
    local settled = state.settled or ''
    if settled == ARGV[7] and tonumber(ARGV[10]) > 0 and not isSettled then settled = '' end
    local reply = { 'ok', text(time), settled, text(stable), text(position) }
    for i = 7, #KEYS do
        local granted
        granted, place = exchangeLane(KEYS, ARGV, KEYS[i], place, mark, time, mayGrant, hosts)
        reply[#reply + 1] = text(granted)
    end
    for i = 1, #news do reply[#reply + 1] = news[i] end
    if latestChange > 0 then prune(KEYS, stable, time) end
    local over = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. text(time), 'LIMIT', 0, BATCH)
    remove(over)
    if #over > 0 then redis.call('ZREM', KEYS[2], unpack(over)) end
    local stale = redis.call('ZPOPMIN', KEYS[3], BATCH)
    for i = 1, #stale, 2 do redis.call('DEL', stale[i]) end
    return reply
end

-- gone: KEYS[1]; ARGV: the epoch's identifier, the host that no one has to wait for any more
local function gone(KEYS, ARGV)
    if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return { 'late' } end
    redis.call('HSET', KEYS[1], 'gone:' .. ARGV[2], '1')
    return { 'ok' }
end

-- hosts: KEYS[1]. It changes nothing, so a full server and a replica answer it, too.
-- Answers the epoch's identifier, the terms settled last, and for each known host its name, how long ago it was heard,
-- its terms, how long ago a second ledger of its name was refused, and whether it is gone ('' where there is none).
local function hosts(KEYS)
    local state, reply, names = load(KEYS[1]), {}, {}
    local away = math.max(clock() - tonumber(state.read or 0), 0)
    local function age(time) return time and text(tonumber(state.time) - tonumber(time) + away) or '' end
    for field in pairs(state) do
        local host = string.match(field, '^seen:(.*)$') or string.match(field, '^gone:(.*)$')
        if host then names[host] = true end
    end
    for host in pairs(names) do
        reply[#reply + 1] = { host, age(state['seen:' .. host]), state['terms:' .. host] or '',
            age(state['second:' .. host]), state['gone:' .. host] or '' }
    end
    return { state.id or '', state.settled or '', reply }
end

redis.register_function('weir_sharing_3_hello', hello)
redis.register_function('weir_sharing_3_exchange', exchange)
redis.register_function('weir_sharing_3_gone', gone)
redis.register_function{function_name = 'weir_sharing_3_hosts', callback = hosts, flags = { 'no-writes' }}
