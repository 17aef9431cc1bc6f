// SPDX-License-Identifier: Apache-2.0
// A model of the epochs and registrations of limits that several hosts share, for Spin. See docs/decisions.md.
//
// Hosts (HOSTS) take units of one pool from an engine of two servers. The window never ends, so no unit is freed again:
// the pool's size bounds all uses together. Time is therefore left out, and with it the rules stop-early and capped-time,
// which the simulator covers. A call, its arrival and its reply are separate steps. Any call or reply may be late or lost.
// A server may be replaced by an older copy or by an empty one, while the old one still answers.
//
// WITHOUT_... leaves a rule out, so that a violation shows that the rule is needed and that the model can fail.

#ifndef HOSTS
#define HOSTS 3
#endif
#ifndef POOL
#define POOL 1
#endif
// Bounds of the search: server processes ever started, connections of one host, and those of all hosts.
#ifndef RUNS
#define RUNS 2
#endif
#ifndef CONNECTIONS
#define CONNECTIONS 3
#endif
#ifndef ALL_CONNECTIONS
#define ALL_CONNECTIONS 5
#endif

mtype:state = { closed, greeting, registering, ready, asking }
mtype:call = { none, hello, register, exchange }
// A grant at its host: there is none; it is open; it is spent; it ran out unspent. The last two are reported.
mtype:grant = { absent, spendable, spent, expired }

// What the engine stores, and what a replica gets: the epoch, the server process on which it began, and for each host
// whether it has registered, its uses, its open grants and its latest connection.
typedef Data {
    byte epoch; byte process;
    bool registered[HOSTS]; byte used[HOSTS]; byte granted[HOSTS]; byte heard[HOSTS]
}
typedef Server { bool alive; byte process; Data data }
// A host keeps all of this in its own ledger, except the server and the state of its dialogue.
typedef Host {
    mtype:state state; mtype:grant grant; byte epoch; byte began; byte connection; byte uses; bit server; byte process
}
// A call under way, or its reply. `value` is the reply: an epoch, or units. `refused` is the reply to a late call.
typedef Call {
    mtype:call kind; bool replied; bool refused; bit server; byte process; byte connection; byte epoch;
    byte began; byte uses; byte reserved; byte value
}

Host hosts[HOSTS];
Server servers[2];
Data copy;              // what a replica or a dump has at the moment
Call calls[HOSTS];      // of the present connection
Call late[HOSTS];       // of a connection that its host has given up
byte runs, total;
byte i;                 // for loops inside one step

inline clear(c) {
    c.kind = none; c.replied = false; c.refused = false; c.server = 0; c.process = 0; c.connection = 0; c.epoch = 0; c.began = 0;
    c.uses = 0; c.reserved = 0; c.value = 0
}

inline move(to, from) {
    to.kind = from.kind; to.replied = from.replied; to.refused = from.refused; to.server = from.server;
    to.process = from.process; to.connection = from.connection; to.epoch = from.epoch; to.began = from.began;
    to.uses = from.uses;
    to.reserved = from.reserved; to.value = from.value
}

inline blank(target) {
    target.epoch = 0; target.process = 0;
    for (i : 0 .. HOSTS - 1) {
        target.registered[i] = false; target.used[i] = 0; target.granted[i] = 0; target.heard[i] = 0
    }
}

inline assign(to, from) {
    to.epoch = from.epoch; to.process = from.process;
    for (i : 0 .. HOSTS - 1) {
        to.registered[i] = from.registered[i]; to.used[i] = from.used[i]; to.granted[i] = from.granted[i];
        to.heard[i] = from.heard[i]
    }
}

inline send(h, k) {
    clear(calls[h]);
    calls[h].kind = k; calls[h].server = hosts[h].server; calls[h].process = hosts[h].process;
    calls[h].connection = hosts[h].connection; calls[h].epoch = hosts[h].epoch;
    calls[h].began = (k == hello -> hosts[h].began : 0)
}

// The call of the connection may still arrive later.
inline close(h) {
    if
    :: calls[h].kind != none && !calls[h].replied && late[h].kind == none -> move(late[h], calls[h])
    :: else
    fi;
    clear(calls[h]);
    hosts[h].state = closed; hosts[h].server = 0; hosts[h].process = 0
}

#ifdef WITHOUT_NEW_EPOCH
#define FOREIGN(s) false
#else
#define FOREIGN(s) (servers[s].data.process != servers[s].process)
#endif
#ifdef WITHOUT_NO_WAY_BACK
#define KNOWN(c) 0
#else
#define KNOWN(c) c.epoch
#endif
#ifdef WITHOUT_IDENTIFY_EPOCHS
#define TWIN(c) false
#else
#define TWIN(c) (DATA(c).epoch == c.epoch && DATA(c).process != c.began)
#endif
#ifdef WITHOUT_NUMBER_CALLS
#define OUTDATED(c, h) false
#else
#define OUTDATED(c, h) (c.connection < DATA(c).heard[h])
#endif
#define DATA(c) servers[c.server].data
#define UNREGISTERED(c, h) (c.kind == exchange && !DATA(c).registered[h])
#define LATE(c, h) (DATA(c).epoch != c.epoch || OUTDATED(c, h) || UNREGISTERED(c, h))
#if HOSTS == 3
#define CONNECTED (hosts[0].connection + hosts[1].connection + hosts[2].connection)
#define ALL_REGISTERED(d) (d.registered[0] && d.registered[1] && d.registered[2])
#else
#define CONNECTED (hosts[0].connection + hosts[1].connection)
#define ALL_REGISTERED(d) (d.registered[0] && d.registered[1])
#endif

// Which epoch this is. A new one begins where there is none, or one of another server, or one that is over.
inline answer_hello(c) {
    if
    :: DATA(c).epoch == 0 || FOREIGN(c.server) || DATA(c).epoch < KNOWN(c) || TWIN(c) ->
        epoch = (DATA(c).epoch > KNOWN(c) -> DATA(c).epoch : KNOWN(c)) + 1;
        blank(DATA(c)); DATA(c).epoch = epoch; DATA(c).process = servers[c.server].process
    :: else
    fi;
    c.value = DATA(c).epoch
}

// The uses and the open grants of a host replace what the engine has of it.
inline answer_register(c, h) {
    DATA(c).used[h] = c.uses;
#ifdef WITHOUT_REGISTER_GRANTS
    DATA(c).granted[h] = 0;
#else
    DATA(c).granted[h] = c.reserved;
#endif
    DATA(c).registered[h] = true
}

// A grant that is over is replaced by what was spent of it (`uses`, if `reserved` says that there is a report).
inline answer_exchange(c, h) {
    if
    :: c.reserved == 1 && DATA(c).granted[h] == 1 -> DATA(c).granted[h] = 0; DATA(c).used[h] = DATA(c).used[h] + c.uses
    :: else
    fi;
    units = 0;
    for (i : 0 .. HOSTS - 1) { units = units + DATA(c).used[i] + DATA(c).granted[i] }
    if
#ifdef WITHOUT_WAIT_FOR_ALL
    :: units < POOL ->
#else
    :: units < POOL && ALL_REGISTERED(DATA(c)) ->
#endif
        c.value = 1;
#ifndef WITHOUT_COUNT_GRANTS
        DATA(c).granted[h] = 1
#endif
    :: else -> c.value = 0
    fi
}

// A call arrives at the server process to which it was sent.
inline arrive(c, h) {
    if
    :: !servers[c.server].alive || servers[c.server].process != c.process -> clear(c)
    :: else ->
        if
        :: c.kind == hello -> answer_hello(c)
        :: c.kind != hello && LATE(c, h) -> c.refused = true
        :: else ->
            DATA(c).heard[h] = c.connection;
            if
            :: c.kind == register -> answer_register(c, h)
            :: else -> answer_exchange(c, h)
            fi
        fi;
        c.replied = true
    fi
}

// A reply reaches the host, on the connection on which it asked.
inline deliver(h) {
    if
    :: calls[h].refused -> close(h)
    :: !calls[h].refused && calls[h].kind == hello ->
        if
#ifndef WITHOUT_NO_WAY_BACK
        :: calls[h].value < hosts[h].epoch -> close(h)
#endif
        :: else ->
            hosts[h].epoch = calls[h].value; hosts[h].began = calls[h].process;
            // Grants that are over are among the uses.
            if
            :: hosts[h].grant != spendable -> hosts[h].grant = absent
            :: else
            fi;
            hosts[h].state = registering;
            send(h, register);
            calls[h].uses = hosts[h].uses;
            calls[h].reserved = (hosts[h].grant == spendable -> 1 : 0)
        fi
    :: !calls[h].refused && calls[h].kind == register -> hosts[h].state = ready; clear(calls[h])
    :: else ->
        hosts[h].state = ready;
        hosts[h].grant = (calls[h].value == 1 -> spendable : absent);
        clear(calls[h])
    fi
}

// The other server takes over with an older copy or with nothing, or a server starts again so.
inline start(s) {
    runs++;
    servers[s].process = runs; servers[s].alive = true;
    // No later server can use the copy: states that differ in it alone are one.
    if
    :: runs == RUNS -> blank(copy)
    :: else
    fi
}

inline step(h) {
    if
    :: hosts[h].state == closed && hosts[h].connection < CONNECTIONS && CONNECTED < ALL_CONNECTIONS ->
        if
        :: servers[0].alive -> hosts[h].server = 0
        :: servers[1].alive -> hosts[h].server = 1
        fi;
        hosts[h].process = servers[hosts[h].server].process;
        hosts[h].connection++;
        hosts[h].state = greeting;
        send(h, hello)
    :: hosts[h].state == ready && hosts[h].grant != spendable ->
        send(h, exchange);
        calls[h].reserved = (hosts[h].grant == absent -> 0 : 1);
        calls[h].uses = (hosts[h].grant == spent -> 1 : 0);
        hosts[h].state = asking
    :: hosts[h].grant == spendable -> hosts[h].grant = spent; hosts[h].uses++; total++; assert(total <= POOL)
    :: hosts[h].grant == spendable -> hosts[h].grant = expired
    :: calls[h].kind != none && !calls[h].replied -> arrive(calls[h], h)
    :: calls[h].replied -> deliver(h)
    :: late[h].kind != none -> arrive(late[h], h); clear(late[h])
    :: late[h].kind != none -> clear(late[h])
    // A crash, a time-out or a partition. What the ledger of the host has remains.
    :: hosts[h].state != closed && hosts[h].connection < CONNECTIONS && CONNECTED < ALL_CONNECTIONS -> close(h)
    fi
}

active proctype search() {
    byte epoch, units;
    d_step {
        for (i : 0 .. HOSTS - 1) {
            hosts[i].state = closed; hosts[i].grant = absent; calls[i].kind = none; late[i].kind = none
        }
        i = 0;
        start(0)
    }
end:
    do
    :: atomic { step(0); epoch = 0; units = 0; i = 0 }
    :: atomic { step(1); epoch = 0; units = 0; i = 0 }
#if HOSTS == 3
    :: atomic { step(2); epoch = 0; units = 0; i = 0 }
#endif
    // The replica or the dump gets the data of a server. The copy is of use only if another server will start.
    :: atomic { runs < RUNS && servers[0].alive -> assign(copy, servers[0].data); i = 0 }
    :: atomic { runs < RUNS && servers[1].alive -> assign(copy, servers[1].data); i = 0 }
    :: atomic { runs < RUNS -> assign(servers[0].data, copy); start(0); i = 0 }
    :: atomic { runs < RUNS -> assign(servers[1].data, copy); start(1); i = 0 }
    :: atomic { runs < RUNS -> blank(servers[1].data); start(1); i = 0 }
    // An old primary ends.
    :: atomic { servers[0].alive && servers[1].alive -> servers[0].alive = false; servers[0].process = 0; blank(servers[0].data); i = 0 }
    :: atomic { servers[0].alive && servers[1].alive -> servers[1].alive = false; servers[1].process = 0; blank(servers[1].data); i = 0 }
    od
}
